import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../lib/error.js'
import { collect, collectTasks, invalid } from './collect.js'
import type { ProcessorConfig } from './config/processor-config.js'
import type { ImageSource, OpenOptions } from './image/image.js'
import { openImage, openVideo, type Visual } from './media/open-media.js'
import { checkOptions, type ImageOptions, tokensPerTile, type VideoOptions, withOptions } from './processor-options.js'
import type { ChatTemplate, Prompt, RenderOptions } from './text/chat-template.js'
import { answersIn, checkAnswers, cutAtAnswers, type Labelled, labelled, type Stretch, type Turn } from './text/labels.js'
import { checkMessages, checkNotEmpty, imageOf, itemsOf, type Messages, type VideoSource, videoOf } from './text/messages.js'
import { type Cut, type Extent, expand, placeholders, type VisualTokens } from './text/placeholders.js'
import type { Piece, Tokenizer } from './text/tokenizer.js'

export interface TextOptions {
  /** Special tokens that messages may use, all of them or those named; none unless given, and what is typed stays text. */
  readonly allowedSpecial?: 'all' | readonly string[]
  /** Side on which shorter rows are filled up; left unless given. */
  readonly paddingSide?: 'left' | 'right'
}

export type PrepareOptions = RenderOptions & TextOptions & ImageOptions & VideoOptions & OpenOptions

/** Prompts already rendered, with the pictures and films of all their placeholders in order. Special tokens in them are meant. */
export interface RenderedInputs {
  readonly text: readonly string[]
  readonly images?: readonly ImageSource[]
  readonly videos?: readonly VideoSource[]
}

/** What a processor is made of. */
export interface Parts {
  readonly config: ProcessorConfig
  readonly tokenizer: Tokenizer
  readonly chatTemplate: ChatTemplate
  readonly visual: VisualTokens
  /** Texts that people may only quote. */
  readonly control: readonly string[]
  readonly cut: Cut
}

/** A batch before its pixels are read: ids of every row, and what is shown, in the order of the placeholders. */
export interface Assembled {
  readonly ids: readonly (readonly number[])[]
  /** For each id the same where it is to be learned, else −100. */
  readonly labels: readonly (readonly number[])[]
  readonly visuals: readonly Visual[]
  readonly prompts: readonly string[]
}

type Open = (config: ProcessorConfig, options: OpenOptions) => readonly TaskEither<Issues, Visual>[]

/** Tokens that answers are written with, in training data too. Source: `internvl_chat_finetune.py`, its token list (OpenGVLab). */
const grounding = ['<quad>', '</quad>', '<ref>', '</ref>', '<box>', '</box>']

/** A row to be: its prompt, how to open what it shows, and how to call it in an error. */
interface Row {
  readonly prompt: Prompt
  readonly open: Open
  readonly where: string
  /** What of the prompt is to be learned. */
  readonly answers?: readonly Stretch[]
}

/** The control tokens that a call does not allow. */
const forbidden = (control: readonly string[], { allowedSpecial = [] }: TextOptions): readonly string[] =>
  allowedSpecial === 'all' ? [] : control.filter((token) => !allowedSpecial.includes(token))

const count = (kinds: readonly Extent['kind'][], kind: Extent['kind']): number => kinds.filter((k) => k === kind).length

const mismatch = (shown: readonly Extent['kind'][], given: readonly Extent['kind'][], where: string): readonly Issue[] =>
  (['image', 'video'] as const).flatMap((kind) => {
    const [expected, actual] = [count(shown, kind), count(given, kind)]
    const numbers = `${kind} placeholders in the prompt (${expected}) does not match the number of ${kind}s (${actual})`
    return expected === actual ? [] : [issue('Placeholders', `${where}: number of ${numbers}.`, { kind, expected, actual })]
  })

/** Pictures and films in the order of their placeholders: each takes the next of its kind. */
const inOrder = (kinds: readonly Extent['kind'][], visuals: readonly Visual[]): readonly Visual[] => {
  const left = { image: visuals.filter((v) => v.kind === 'image'), video: visuals.filter((v) => v.kind === 'video') }
  return kinds.map((kind) => left[kind].shift()!)
}

interface Encoded extends Labelled {
  readonly visuals: readonly Visual[]
}

const turnsOf = (pieces: ReadonlyArray<readonly Piece[]>): readonly Turn[] =>
  pieces.flatMap((before, i) => (i % 2 === 0 ? [{ before, answer: pieces[i + 1] ?? [] }] : []))

const encodeRow = (
  { config, tokenizer, visual, control, cut }: Parts,
  { prompt, where, answers = [] }: Row,
  opened: readonly Visual[],
  options: TextOptions
): E.Either<Issues, Encoded> => {
  const found = cutAtAnswers(prompt, answers).map((part) => cut(part, forbidden(control, options)))
  const kinds = placeholders(found.flat(), visual)
  const given = opened.map(({ kind }) => kind)
  const wrong = mismatch(kinds, given, where)
  if (wrong.length > 0) return whenValid(wrong, () => ({ ids: [], labels: [], visuals: [] }))
  const visuals = inOrder(kinds, opened)
  const extents = visuals.map(({ kind, tiles, tileSize }) => ({ kind, tiles, tokens: tokensPerTile(config, tileSize) }))
  if (extents.some(({ tokens }) => tokens === 0 || !Number.isInteger(tokens)))
    return invalid('Option', `${where}: a tile of its size is no whole number of tokens; leave doResize on.`)
  const { bos_token: bos } = tokenizer.names
  const addSpecialTokens = bos === undefined || !prompt.text.startsWith(bos) // else it would stand twice
  const pieces = found.map((part) => expand(part, extents.splice(0, placeholders(part, visual).length), visual))
  return E.right({ ...labelled(tokenizer, turnsOf(pieces), addSpecialTokens), visuals })
}

const nothing: Assembled = { ids: [], labels: [], visuals: [], prompts: [] }

/** Everything but the pixels, or all errors of all rows. */
const assemble = async (parts: Parts, rows: readonly Row[], options: PrepareOptions): Promise<E.Either<Issues, Assembled>> => {
  const settings = withOptions(parts.config, options)
  const wrong = checkOptions(parts.config, settings)
  if (wrong.length > 0) return whenValid(wrong, () => nothing)
  const opened = collect(await Promise.all(rows.map(({ open }) => collectTasks(open(settings, options))())))
  if (E.isLeft(opened)) return opened
  const encoded = collect(rows.map((row, i) => encodeRow(parts, row, opened.right[i]!, options)))
  return E.map((all: readonly Encoded[]) => ({
    ids: all.map(({ ids }) => ids),
    labels: all.map(({ labels }) => labels),
    visuals: all.flatMap(({ visuals }) => visuals),
    prompts: rows.map(({ prompt }) => prompt.text)
  }))(encoded)
}

const missing = (what: string, where: string): TaskEither<Issues, Visual> => {
  return async () => invalid('Message', `${where}: ${what} item without a source.`)
}

/** How to open what a conversation shows. */
const shownIn =
  (messages: Messages, where: string): Open =>
  ({ image, video }, options) =>
    messages.flatMap((message, i) =>
      itemsOf(message).flatMap((item, j) => {
        if (item.type === 'text') return []
        const at = `${where}[${i}].content[${j}]`
        if (item.type === 'image') {
          const source = imageOf(item)
          return [source === undefined ? missing('an image', at) : openImage(source, image, options)]
        }
        const source = videoOf(item)
        return [source === undefined ? missing('a video', at) : openVideo(source, item.fps, video, options)]
      })
    )

const messageRow = (parts: Parts, messages: Messages, where: string, options: PrepareOptions): E.Either<Issues, Row> => {
  const checked = E.chain((valid: Messages) => whenValid(checkNotEmpty(valid, where), () => valid))(
    checkMessages(messages, where)
  )
  if (E.isLeft(checked)) return checked
  const prompt = parts.chatTemplate.render(checked.right, forbidden(parts.control, options), options)
  return E.map((rendered: Prompt) => ({ prompt: rendered, open: shownIn(checked.right, where), where }))(prompt)
}

/** A batch of conversations. */
export const assembleMessages = async (
  parts: Parts,
  batch: readonly Messages[],
  options: PrepareOptions
): Promise<E.Either<Issues, Assembled>> => {
  if (batch.length === 0) return invalid('Message', 'The batch is empty: give at least one conversation.')
  const where = (i: number): string => (batch.length === 1 ? 'messages' : `batch[${i}]`)
  const rows = collect(batch.map((messages, i) => messageRow(parts, messages, where(i), options)))
  return E.isLeft(rows) ? rows : assemble(parts, rows.right, options)
}

/** A conversation to learn from: the tokens of its answers are its labels. */
export const assembleLesson = async (
  parts: Parts,
  messages: Messages,
  given: PrepareOptions,
  where = 'messages'
): Promise<E.Either<Issues, Assembled>> => {
  const options = { allowedSpecial: grounding, ...given, addGenerationPrompt: false }
  const row = E.chain((valid: Messages) => messageRow(parts, valid, where, options))(checkAnswers(messages, where))
  if (E.isLeft(row)) return row
  const answers = answersIn(parts.chatTemplate, parts.tokenizer, messages, row.right.prompt, options, where)
  return E.isLeft(answers) ? answers : assemble(parts, [{ ...row.right, answers: answers.right }], options)
}

/** A batch of rendered prompts; their placeholders take the pictures and films in order, over all rows. */
export const assembleText = async (
  parts: Parts,
  { text, images = [], videos = [] }: RenderedInputs,
  options: PrepareOptions
): Promise<E.Either<Issues, Assembled>> => {
  if (text.length === 0) return invalid('Message', 'You have to specify text.')
  const prompts = text.map((t): Prompt => ({ text: t, spans: [] }))
  const kinds = prompts.map((prompt) => placeholders(parts.cut(prompt, []), parts.visual))
  const given = [...images.map(() => 'image' as const), ...videos.map(() => 'video' as const)]
  const wrong = mismatch(kinds.flat(), given, 'text')
  if (wrong.length > 0) return whenValid(wrong, () => nothing)
  const left = { image: [...images], video: [...videos] }
  const rows = prompts.map((prompt, i): Row => {
    const mine = {
      image: left.image.splice(0, count(kinds[i]!, 'image')),
      video: left.video.splice(0, count(kinds[i]!, 'video'))
    }
    const open: Open = ({ image, video }, o) => [
      ...mine.image.map((source) => openImage(source, image, o)),
      ...mine.video.map((source) => openVideo(source, undefined, video, o))
    ]
    return { prompt, open, where: `text[${i}]` }
  })
  return assemble(parts, rows, options)
}
