import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, invalid, issue, validateAll, validation, whenValid } from '../lib/error.js'
import type { ProcessorConfig } from './config/processor-config.js'
import type { ImageSource, OpenOptions } from './image/image.js'
import { checkConversationSize, countMedia, type InputLimits, limitIssue } from './limits.js'
import { openImageTiles, openVideoTiles, type VisualInput } from './media/open-media.js'
import { checkOptions, type ImageOptions, tokensPerTile, type VideoOptions, withOptions } from './processor-options.js'
import type { ChatTemplate, Prompt, RenderOptions } from './text/chat-template.js'
import { answerSpans, checkAnswers, encodeTurns, type LabelledIds, type Span, splitAtSpans, type Turn } from './text/labels.js'
import {
  checkMessages,
  checkNotEmpty,
  imageSourceOf,
  itemsOf,
  type Messages,
  type VideoSource,
  videoSourceOf
} from './text/messages.js'
import {
  expandPlaceholders,
  placeholderKinds,
  type SplitPrompt,
  type VisualKind,
  type VisualTokens
} from './text/placeholders.js'
import type { Piece, Tokenizer } from './text/tokenizer.js'

export interface TextOptions {
  /**
   * Special tokens that message texts may use: all, or those listed; other special tokens in message texts stay plain text. Default:
   * the grounding tokens `<ref>`, `<box>` and `<quad>`, which OpenGVLab's grounding prompts contain.
   */
  readonly allowedSpecial?: 'all' | readonly string[]
  /** Side on which shorter rows are padded. Default: left. */
  readonly paddingSide?: 'left' | 'right'
}

export interface LimitOptions {
  /** Largest sizes of the input. */
  readonly limits?: InputLimits
}

export type PrepareOptions = RenderOptions & TextOptions & ImageOptions & VideoOptions & OpenOptions & LimitOptions

/** Rendered prompts with the images and videos of all their placeholders in order. Special tokens in the text are tokens. */
export interface RenderedInputs {
  readonly text: readonly string[]
  readonly images?: readonly ImageSource[]
  readonly videos?: readonly VideoSource[]
}

/** The parts of a processor that encoding reads. */
export interface ProcessorParts {
  readonly config: ProcessorConfig
  readonly tokenizer: Tokenizer
  readonly chatTemplate: ChatTemplate
  readonly visual: VisualTokens
  /** Texts of tokens that messages may quote but not use. */
  readonly control: readonly string[]
  readonly splitPrompt: SplitPrompt
}

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

/** Grounding tokens, which questions and answers may contain. Source: token list of `internvl_chat_finetune.py` (OpenGVLab). */
const GROUNDING_TOKENS = ['<quad>', '</quad>', '<ref>', '</ref>', '<box>', '</box>']

type OpenMedia = (config: ProcessorConfig, options: OpenOptions) => readonly TE.TaskEither<Issues, VisualInput>[]

/** The prompt of one row, and how to open its images and videos. Error messages call the row `where`. */
interface PromptRow {
  readonly prompt: Prompt
  readonly open: OpenMedia
  readonly where: string
}

interface OpenedRow extends PromptRow {
  readonly visuals: readonly VisualInput[]
}

/** Control tokens that the options do not allow in message texts. */
const disallowedTokens = (control: readonly string[], { allowedSpecial = GROUNDING_TOKENS }: TextOptions): readonly string[] =>
  allowedSpecial === 'all' ? [] : control.filter((token) => !allowedSpecial.includes(token))

const count = (kinds: readonly VisualKind[], kind: VisualKind): number => kinds.filter((k) => k === kind).length

/** Errors where the number of placeholders differs from the number of images or videos. */
const placeholderIssues = (placeholders: readonly VisualKind[], media: readonly VisualKind[], where: string): readonly Issue[] =>
  (['image', 'video'] as const).flatMap((kind) => {
    const [expected, actual] = [count(placeholders, kind), count(media, kind)]
    const numbers = `${kind} placeholders in the prompt (${expected}) does not match the number of ${kind}s (${actual})`
    return expected === actual ? [] : [issue('Placeholders', `${where}: number of ${numbers}.`, { kind, expected, actual })]
  })

/** Reorders images and videos to placeholder order: each placeholder takes the next of its kind. */
const inPlaceholderOrder = (kinds: readonly VisualKind[], visuals: readonly VisualInput[]): readonly VisualInput[] => {
  const queues = { image: visuals.filter((v) => v.kind === 'image'), video: visuals.filter((v) => v.kind === 'video') }
  return kinds.map((kind) => queues[kind].shift()!)
}

const CONCURRENCY = 8

/** Runs eight tasks at a time and gathers their results, or the errors of all. */
const validateTasks =
  <A>(tasks: readonly TE.TaskEither<Issues, A>[]): TE.TaskEither<Issues, readonly A[]> =>
  async () => {
    const results: E.Either<Issues, A>[] = []
    const queue = tasks.entries()
    const worker = async (): Promise<void> => {
      for (const [i, task] of queue) results[i] = await task()
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, worker))
    return validateAll(results)
  }

/** Errors where there are too many tiles, or too many frames of a video. */
const checkTiles = (rows: readonly OpenedRow[], { limits }: LimitOptions): readonly Issue[] => {
  const tiles = rows.flatMap(({ visuals }) => visuals).reduce((sum, visual) => sum + visual.tiles, 0)
  const frames = rows.flatMap(({ visuals, where }) =>
    visuals
      .filter(({ kind }) => kind === 'video')
      .flatMap((video) => limitIssue(limits, 'maxFrames', video.tiles, where, 'frames of a video; sample fewer with numFrames'))
  )
  return [...frames, ...limitIssue(limits, 'maxTiles', tiles, 'The batch', 'tiles and frames')]
}

/** Opens the images and videos of all rows. Errors: invalid options, or every image and video that cannot be opened. */
const openRows = (
  { config }: ProcessorParts,
  rows: readonly PromptRow[],
  options: PrepareOptions
): TE.TaskEither<Issues, readonly OpenedRow[]> => {
  const settings = withOptions(config, options)
  const openRow = (row: PromptRow): TE.TaskEither<Issues, OpenedRow> =>
    pipe(
      validateTasks(row.open(settings, options)),
      TE.map((visuals) => ({ ...row, visuals }))
    )
  return pipe(
    TE.fromEither(whenValid(checkOptions(config, settings), () => rows)),
    TE.chain((valid) => async () => validateAll(await Promise.all(valid.map((row) => openRow(row)())))),
    TE.chainEitherK((opened) => whenValid(checkTiles(opened, options), () => opened))
  )
}

interface ExpandedRow {
  /** Pieces of each part of the prompt. */
  readonly parts: readonly (readonly Piece[])[]
  readonly visuals: readonly VisualInput[]
  /** False where the template already wrote the begin token. */
  readonly addSpecialTokens: boolean
}

/** Splits a prompt at `spans` and on special tokens, and replaces each placeholder by the tokens of its image or video. */
const expandRow = (
  { config, tokenizer, visual, control, splitPrompt }: ProcessorParts,
  { prompt, where, visuals: opened }: OpenedRow,
  spans: readonly Span[],
  options: TextOptions
): E.Either<Issues, ExpandedRow> => {
  const parts = splitAtSpans(prompt, spans).map((part) => splitPrompt(part, disallowedTokens(control, options)))
  const kinds = placeholderKinds(parts.flat(), visual)
  return pipe(
    whenValid(
      placeholderIssues(
        kinds,
        opened.map(({ kind }) => kind),
        where
      ),
      () => inPlaceholderOrder(kinds, opened)
    ),
    E.chain((visuals) => {
      const counts = visuals.map(({ kind, tiles, tileSize }) => ({ kind, tiles, tokens: tokensPerTile(config, tileSize) }))
      if (counts.some(({ tokens }) => tokens === 0 || !Number.isInteger(tokens)))
        return invalid('Option', `${where}: a tile of its size is not a whole number of tokens; leave doResize on.`)
      const { bos_token: bos } = tokenizer.names
      return E.right({
        parts: parts.map((part) => expandPlaceholders(part, counts.splice(0, placeholderKinds(part, visual).length), visual)),
        visuals,
        addSpecialTokens: bos === undefined || !prompt.text.startsWith(bos)
      })
    })
  )
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
    E.chain((valid) =>
      whenValid([...checkConversationSize(valid, options.limits, where), ...checkNotEmpty(valid, where)], () => valid)
    ),
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
          checkAnswers(messages, where),
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

/** Encodes a batch of rendered prompts; their placeholders take the images and videos in order, over all rows. */
export const encodeRendered = (
  parts: ProcessorParts,
  { text, images = [], videos = [] }: RenderedInputs,
  options: PrepareOptions
): TE.TaskEither<Issues, EncodedBatch> => {
  if (text.length === 0) return TE.fromEither(invalid('Message', 'You have to specify text.'))
  const oversized = [
    ...text.flatMap((t, i) => limitIssue(options.limits, 'maxCharacters', t.length, `text[${i}]`, 'characters')),
    ...limitIssue(options.limits, 'maxMedia', images.length + videos.length, 'The batch', 'images and videos')
  ]
  const prompts = text.map((t): Prompt => ({ text: t, spans: [] }))
  const kinds = prompts.map((prompt) => placeholderKinds(parts.splitPrompt(prompt, []), parts.visual))
  const media = [...images.map(() => 'image' as const), ...videos.map(() => 'video' as const)]
  const queues = { image: [...images], video: [...videos] }
  const rows = prompts.map((prompt, i): PromptRow => {
    const rowImages = queues.image.splice(0, count(kinds[i]!, 'image'))
    const rowVideos = queues.video.splice(0, count(kinds[i]!, 'video'))
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
