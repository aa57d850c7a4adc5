import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, invalid, issue, validateAll, valueText, whenValid } from '../lib/error.js'
import type { ProcessorConfig } from './config/processor-config.js'
import type { ImageSource, OpenOptions } from './image/image.js'
import { type InputLimits, limitIssue } from './limits.js'
import type { VisualInput } from './media/open-media.js'
import { checkOptions, type ImageOptions, tokensPerTile, type VideoOptions, withOptions } from './processor-options.js'
import type { ChatTemplate, Prompt, RenderOptions } from './text/chat-template.js'
import { type Span, splitAtSpans } from './text/labels.js'
import type { VideoSource } from './text/messages.js'
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
  /** Side on which shorter rows are padded. Default: that of the tokenizer's files, else left. */
  readonly paddingSide?: 'left' | 'right'
}

export interface LimitOptions {
  /** Largest sizes of the input. */
  readonly limits?: InputLimits
}

export type PrepareOptions = RenderOptions & TextOptions & ImageOptions & VideoOptions & OpenOptions & LimitOptions

/**
 * Rendered prompts with the images and videos of all their placeholders in order. In a string every special token is a token, also one
 * that a user typed; in a `Prompt` of `renderPrompt` only the template's.
 */
export interface RenderedInputs {
  readonly text: readonly (string | Prompt)[]
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

/** Grounding tokens, which questions and answers may contain. Source: token list of `internvl_chat_finetune.py` (OpenGVLab). */
const GROUNDING_TOKENS = ['<quad>', '</quad>', '<ref>', '</ref>', '<box>', '</box>']

export type OpenMedia = (config: ProcessorConfig, options: OpenOptions) => readonly TE.TaskEither<Issues, VisualInput>[]

/** The prompt of one row, and how to open its images and videos. Error messages call the row `where`. */
export interface PromptRow {
  readonly prompt: Prompt
  readonly open: OpenMedia
  readonly where: string
}

export interface OpenedRow extends PromptRow {
  readonly visuals: readonly VisualInput[]
}

/** Control tokens that the options do not allow in message texts. */
export const disallowedTokens = (
  control: readonly string[],
  { allowedSpecial = GROUNDING_TOKENS }: TextOptions
): readonly string[] => {
  if (allowedSpecial === 'all') return []
  if (!Array.isArray(allowedSpecial))
    throw new RangeError(`allowedSpecial: expected 'all' or a list of tokens, got ${valueText(allowedSpecial)}`)
  return control.filter((token) => !allowedSpecial.includes(token))
}

export const countKind = (kinds: readonly VisualKind[], kind: VisualKind): number => kinds.filter((k) => k === kind).length

/** Errors where the number of placeholders differs from the number of images or videos. */
export const placeholderIssues = (
  placeholders: readonly VisualKind[],
  media: readonly VisualKind[],
  where: string
): readonly Issue[] =>
  (['image', 'video'] as const).flatMap((kind) => {
    const [expected, actual] = [countKind(placeholders, kind), countKind(media, kind)]
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
export const openRows = (
  { config }: ProcessorParts,
  rows: readonly PromptRow[],
  options: PrepareOptions
): TE.TaskEither<Issues, readonly OpenedRow[]> => {
  const settings = withOptions(config, options)
  const maxPixels = options.limits?.maxPixels ?? options.maxPixels
  const openOptions: OpenOptions = maxPixels === undefined ? options : { ...options, maxPixels }
  const openRow = (row: PromptRow): TE.TaskEither<Issues, OpenedRow> =>
    pipe(
      validateTasks(row.open(settings, openOptions)),
      TE.map((visuals) => ({ ...row, visuals }))
    )
  return pipe(
    TE.fromEither(whenValid(checkOptions(config, settings), () => rows)),
    TE.chain((valid) => async () => validateAll(await Promise.all(valid.map((row) => openRow(row)())))),
    TE.chainEitherK((opened) => whenValid(checkTiles(opened, options), () => opened))
  )
}

/** Greatest number of image and video tokens of a row: far beyond the positions of every model. */
const MAX_VISUAL_TOKENS = 2 ** 22

export interface ExpandedRow {
  /** Pieces of each part of the prompt. */
  readonly parts: readonly (readonly Piece[])[]
  readonly visuals: readonly VisualInput[]
  /** False where the template already wrote the begin token. */
  readonly addSpecialTokens: boolean
}

/** Splits a prompt at `spans` and on special tokens, and replaces each placeholder by the tokens of its image or video. */
export const expandRow = (
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
      const total = counts.reduce((sum, { tiles, tokens }) => sum + tiles * tokens, 0)
      if (total > MAX_VISUAL_TOKENS)
        return invalid('TooLarge', `${where}: ${total} tokens of images and videos, more than ${MAX_VISUAL_TOKENS}; show fewer.`)
      const { bos_token: bos } = tokenizer.names
      return E.right({
        parts: parts.map((part) => expandPlaceholders(part, counts.splice(0, placeholderKinds(part, visual).length), visual)),
        visuals,
        addSpecialTokens: bos === undefined || !prompt.text.startsWith(bos)
      })
    })
  )
}
