import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import { isNonEmpty } from 'fp-ts/lib/ReadonlyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, invalid, issue, validateAll, validation, valueText, whenValid } from '../lib/error.js'
import { checkConversationSize, countMedia, limitIssue } from './limits.js'
import { openImageTiles, openVideoTiles, type VisualInput } from './media/open-media.js'
import {
  countKind,
  disallowedTokens,
  type ExpandedRow,
  expandRow,
  type OpenMedia,
  openRows,
  type PrepareOptions,
  type ProcessorParts,
  type PromptRow,
  placeholderIssues,
  type RenderedInputs
} from './prompt-row.js'
import type { Prompt } from './text/chat-template.js'
import { answerSpans, checkAnswers, encodeTurns, type LabelledIds, type Turn } from './text/labels.js'
import { checkMessages, imageSourceOf, itemsOf, type Messages, videoSourceOf } from './text/messages.js'
import { placeholderKinds } from './text/placeholders.js'
import type { Piece, Tokenizer } from './text/tokenizer.js'

export type { LimitOptions, PrepareOptions, ProcessorParts, RenderedInputs, TextOptions } from './prompt-row.js'

/** An encoded batch whose images and videos are not decoded yet. */
export interface EncodedBatch {
  /** Token ids of each row, without padding. */
  readonly ids: readonly (readonly number[])[]
  /** Images and videos of all rows, in placeholder order. */
  readonly visuals: readonly VisualInput[]
  readonly prompts: readonly string[]
}

/** A conversation with training labels; its images and videos are not decoded yet. */
export interface EncodedConversation extends LabelledIds {
  /** In placeholder order. */
  readonly visuals: readonly VisualInput[]
}

const encodeAll = async (tokenizer: Tokenizer, rows: readonly ExpandedRow[]): Promise<readonly (readonly number[])[]> => {
  const ids: number[][] = []
  for (const { parts, addSpecialTokens } of rows) ids.push(await tokenizer.encodePiecesAsync(parts.flat(), { addSpecialTokens }))
  return ids
}

/** Opens and encodes rows for inference. */
const encodeRows = (
  parts: ProcessorParts,
  rows: readonly PromptRow[],
  options: PrepareOptions
): TE.TaskEither<Issues, EncodedBatch> =>
  pipe(
    openRows(parts, rows, options),
    TE.chainEitherK(RA.traverse(validation)((row) => expandRow(parts, row, [], options))),
    TE.bindTo('expanded'),
    TE.bind('ids', ({ expanded }) => TE.fromTask(() => encodeAll(parts.tokenizer, expanded))),
    TE.map(({ expanded, ids }) => ({
      ids,
      visuals: expanded.flatMap(({ visuals }) => visuals),
      prompts: rows.map(({ prompt }) => prompt.text)
    }))
  )

const missingSource = (item: string, where: string): TE.TaskEither<Issues, VisualInput> =>
  TE.fromEither(invalid('Message', `${where}: ${item} item without a source.`))

/** Opens every image and video item of a conversation. */
const mediaOpener =
  (messages: Messages, where: string): OpenMedia =>
  ({ image, video }, options) =>
    messages.flatMap((message, i) =>
      itemsOf(message).flatMap((item, j) => {
        if (item.type === 'text') return []
        const at = `${where}[${i}].content[${j}]`
        if (item.type === 'image') {
          const source = imageSourceOf(item)
          return [source === undefined ? missingSource('an image', at) : openImageTiles(source, image, options)]
        }
        const source = videoSourceOf(item)
        return [source === undefined ? missingSource('a video', at) : openVideoTiles(source, item.fps, video, options)]
      })
    )

const messageRow = (
  parts: ProcessorParts,
  messages: Messages,
  where: string,
  options: PrepareOptions
): E.Either<Issues, PromptRow> =>
  pipe(
    checkMessages(messages, where),
    E.chain((valid) => whenValid(checkConversationSize(valid, options.limits, where), () => valid)),
    E.chain((valid) =>
      pipe(
        parts.chatTemplate.render(valid, disallowedTokens(parts.control, options), options),
        E.map((prompt) => ({ prompt, open: mediaOpener(valid, where), where }))
      )
    )
  )

/** Encodes a batch of conversations for inference. */
export const encodeMessages = (
  parts: ProcessorParts,
  batch: readonly Messages[],
  options: PrepareOptions
): TE.TaskEither<Issues, EncodedBatch> => {
  if (!Array.isArray(batch))
    return TE.left([issue('Message', `batch: expected a list of conversations, got ${valueText(batch)}.`)])
  const where = (i: number): string => (batch.length === 1 ? 'messages' : `batch[${i}]`)
  const rows =
    batch.length === 0
      ? invalid('Message', 'The batch is empty: give at least one conversation.')
      : validateAll(batch.map((messages, i) => messageRow(parts, messages, where(i), options)))
  const checkMedia = (): readonly Issue[] =>
    limitIssue(
      options.limits,
      'maxMedia',
      batch.reduce((n, messages) => n + countMedia(messages), 0),
      'The batch',
      'images and videos'
    )
  return pipe(
    TE.fromEither(rows),
    TE.chainEitherK((valid) => whenValid(checkMedia(), () => valid)),
    TE.chain((valid) => encodeRows(parts, valid, options))
  )
}

/** Alternating parts before and inside answer spans, as turns. */
const turnsOf = (parts: ReadonlyArray<readonly Piece[]>): readonly Turn[] =>
  parts.flatMap((before, i) => (i % 2 === 0 ? [{ before, answer: parts[i + 1] ?? [] }] : []))

/** Encodes a conversation for training: the tokens of the assistant's answers are the labels. */
export const encodeWithLabels = (
  parts: ProcessorParts,
  messages: Messages,
  prepareOptions: PrepareOptions,
  where = 'messages'
): TE.TaskEither<Issues, EncodedConversation> => {
  const options = { ...prepareOptions, addGenerationPrompt: false }
  return pipe(
    TE.Do,
    TE.bind('row', () =>
      TE.fromEither(
        pipe(
          checkMessages(messages, where),
          E.chain((valid) => checkAnswers(valid, where)),
          E.chain((valid) => messageRow(parts, valid, where, options))
        )
      )
    ),
    TE.bind('spans', ({ row }) =>
      TE.fromEither(answerSpans(parts.chatTemplate, parts.tokenizer, messages, row.prompt, options, where))
    ),
    TE.bind('opened', ({ row }) => openRows(parts, [row], options)),
    TE.chainEitherK(({ spans, opened }) => expandRow(parts, opened[0]!, spans, options)),
    TE.map((row) => ({ ...encodeTurns(parts.tokenizer, turnsOf(row.parts), row.addSpecialTokens), visuals: row.visuals }))
  )
}

/** Whether spans lie in a text, one after the other. */
const areSpansOf = (text: string, spans: unknown): boolean =>
  Array.isArray(spans) &&
  spans.every((span) => Array.isArray(span) && span.slice(0, 2).every(Number.isSafeInteger)) &&
  spans
    .toSorted(([a], [b]) => a - b)
    .every(([start, end], i, sorted) => start >= (sorted[i - 1]?.[1] ?? 0) && end >= start && end <= text.length)

/** An error for a value that is neither a text nor a prompt of `renderPrompt`. */
const promptIssues = (value: unknown, where: string): readonly Issue[] => {
  if (typeof value === 'string') return []
  const { text, spans } = (value ?? {}) as Partial<Prompt>
  return typeof text === 'string' && areSpansOf(text, spans)
    ? []
    : [
        issue(
          'Message',
          `${where}: expected a rendered text, or a prompt of renderPrompt: { text, spans } with spans in the text.`
        )
      ]
}

/** Encodes a batch of rendered prompts; their placeholders take the images and videos in order, over all rows. */
export const encodeRendered = (
  parts: ProcessorParts,
  { text, images = [], videos = [] }: RenderedInputs,
  options: PrepareOptions
): TE.TaskEither<Issues, EncodedBatch> => {
  if (text.length === 0) return TE.fromEither(invalid('Message', 'You have to specify text.'))
  const malformed = text.flatMap((t, i) => promptIssues(t, `text[${i}]`))
  if (isNonEmpty(malformed)) return TE.left(malformed)
  const prompts = text.map((t): Prompt => (typeof t === 'string' ? { text: t, spans: [] } : t))
  const oversized = [
    ...prompts.flatMap((t, i) => limitIssue(options.limits, 'maxCharacters', t.text.length, `text[${i}]`, 'characters')),
    ...limitIssue(options.limits, 'maxMedia', images.length + videos.length, 'The batch', 'images and videos')
  ]
  const disallowed = disallowedTokens(parts.control, options)
  const kinds = prompts.map((prompt) => placeholderKinds(parts.splitPrompt(prompt, disallowed), parts.visual))
  const media = [...images.map(() => 'image' as const), ...videos.map(() => 'video' as const)]
  const queues = { image: [...images], video: [...videos] }
  const rows = prompts.map((prompt, i): PromptRow => {
    const rowImages = queues.image.splice(0, countKind(kinds[i]!, 'image'))
    const rowVideos = queues.video.splice(0, countKind(kinds[i]!, 'video'))
    const open: OpenMedia = ({ image, video }, o) => [
      ...rowImages.map((source) => openImageTiles(source, image, o)),
      ...rowVideos.map((source) => openVideoTiles(source, undefined, video, o))
    ]
    return { prompt, open, where: `text[${i}]` }
  })
  return pipe(
    TE.fromEither(whenValid([...oversized, ...placeholderIssues(kinds.flat(), media, 'text')], () => rows)),
    TE.chain((valid) => encodeRows(parts, valid, options))
  )
}
