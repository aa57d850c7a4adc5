import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Faults, unless } from '../lib/fault.js'
import { type ChatTemplate, compileTemplate, type Prompt, type RenderOptions } from './chat.js'
import { collect, collectTasks, leftFault } from './collect.js'
import { decodeProcessorConfig, isOriginal, type ProcessorConfig } from './config.js'
import { type Folder, readFolder } from './folder.js'
import type { ImageSource, OpenOptions } from './image.js'
import { type Assembled, type ModelInputs, mismatch, type Open, type Row, toInputs, visualsOf } from './inputs.js'
import { checkMessages, checkNotEmpty, type Messages, type VideoSource } from './messages.js'
import { checkOptions, type ImageOptions, tokensPerTile, type VideoOptions, withOptions } from './options.js'
import { controlTokens, cutter, expand, placeholders, visualTokens } from './prompt.js'
import { originalTemplate } from './templates.js'
import { buildTokenizer, type Tokenizer } from './tokenizer.js'
import { openImage, openVideo } from './visual.js'

export interface TextOptions {
  /** Special tokens that messages may use, all of them or those named; none unless given, and what is typed stays text. */
  readonly allowedSpecial?: 'all' | readonly string[]
  /** Side on which shorter rows are filled up; left unless given. */
  readonly paddingSide?: 'left' | 'right'
}

export type { ModelInputs } from './inputs.js'

export type PrepareOptions = RenderOptions & TextOptions & ImageOptions & VideoOptions & OpenOptions

/** Prompts already rendered, with the pictures and films of all their placeholders in order. Special tokens in them are meant. */
export interface RenderedInputs {
  readonly text: readonly string[]
  readonly images?: readonly ImageSource[]
  readonly videos?: readonly VideoSource[]
}

export interface Processor {
  readonly config: ProcessorConfig
  readonly tokenizer: Tokenizer
  readonly chatTemplate: ChatTemplate
  /** The prompt of a conversation, equal to `apply_chat_template(…, tokenize=False)`. */
  readonly render: (messages: Messages, options?: RenderOptions) => E.Either<Faults, string>
  /** Conversations, one a row, with their pictures and films, as the model takes them. */
  readonly prepare: (batch: readonly Messages[], options?: PrepareOptions) => TaskEither<Faults, ModelInputs>
  /** The same from prompts already rendered. Source: `InternVLProcessor.__call__` (transformers 5.23). */
  readonly prepareText: (inputs: RenderedInputs, options?: PrepareOptions) => TaskEither<Faults, ModelInputs>
  /** Length of the prompt in tokens, pictures included; of pictures only the headers are read. */
  readonly countTokens: (messages: Messages, options?: PrepareOptions) => TaskEither<Faults, number>
  /** Text of ids; `skipSpecialTokens` is false unless given. */
  readonly decode: (ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }) => string
  readonly batchDecode: (
    rows: readonly (readonly number[])[],
    options?: { readonly skipSpecialTokens?: boolean }
  ) => readonly string[]
}

/** A processor of its parts. Faults: picture tokens that the vocabulary lacks. */
export const makeProcessor = (
  config: ProcessorConfig,
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate,
  dir: string
): E.Either<Faults, Processor> => {
  const tokens = visualTokens(tokenizer, dir)
  if (E.isLeft(tokens)) return tokens
  const visual = tokens.right
  const cut = cutter(tokenizer, visual)
  const control = controlTokens(tokenizer, visual, chatTemplate)
  const { names, idOf } = tokenizer
  const filler = idOf(names.pad_token ?? '') ?? idOf(names.eos_token ?? '') ?? 0

  const controlOf = ({ allowedSpecial = [] }: TextOptions): readonly string[] =>
    allowedSpecial === 'all' ? [] : control.filter((token) => !allowedSpecial.includes(token))

  const idsOf = (
    row: Row,
    base: ProcessorConfig,
    options: PrepareOptions,
    where: string
  ): E.Either<Faults, readonly number[]> => {
    const pieces = cut(row.prompt, controlOf(options))
    const extents = row.visuals.map(({ kind, tiles, tileSize }) => ({ kind, tiles, tokens: tokensPerTile(base, tileSize) }))
    const kinds = extents.map(({ kind }) => kind)
    const bos = names.bos_token
    const addSpecialTokens = bos === undefined || !row.prompt.text.startsWith(bos) // else it would stand twice
    return unless(mismatch(placeholders(pieces, visual), kinds, where), () =>
      tokenizer.encodePieces(expand(pieces, extents, visual), { addSpecialTokens })
    )
  }

  /** Everything but the pixels, or all faults of all rows. */
  const assemble = async (
    rows: readonly { readonly prompt: E.Either<Faults, Prompt>; readonly open: Open; readonly where: string }[],
    options: PrepareOptions
  ): Promise<E.Either<Faults, Assembled>> => {
    const settings = withOptions(config, options)
    const wrong = checkOptions(config, settings)
    const valid = collect([unless(wrong, () => undefined), ...rows.map(({ prompt }) => prompt)])
    if (E.isLeft(valid)) return valid
    const visuals = collect(await Promise.all(rows.map(({ open }) => collectTasks(open(settings, options))())))
    if (E.isLeft(visuals)) return visuals
    const prompts = valid.right.slice(1) as readonly Prompt[]
    const ids = collect(
      prompts.map((prompt, i) => idsOf({ prompt, visuals: visuals.right[i]! }, config, options, rows[i]!.where))
    )
    return E.map((all: readonly (readonly number[])[]) => ({
      ids: all,
      visuals: visuals.right.flat(),
      prompts: prompts.map(({ text }) => text)
    }))(ids)
  }

  const assembleMessages = async (batch: readonly Messages[], options: PrepareOptions): Promise<E.Either<Faults, Assembled>> => {
    if (batch.length === 0) return leftFault('Message', 'The batch is empty: give at least one conversation.')
    const names = batch.map((_, i) => (batch.length === 1 ? 'messages' : `batch[${i}]`))
    const checked = collect(
      batch.map((row, i) =>
        E.chain((messages: Messages) => unless(checkNotEmpty(messages, names[i]!), () => messages))(checkMessages(row, names[i]!))
      )
    )
    if (E.isLeft(checked)) return checked
    const rows = checked.right.map((messages, i) => ({
      prompt: chatTemplate.render(messages, controlOf(options), options),
      open: visualsOf(messages, names[i]!),
      where: names[i]!
    }))
    return assemble(rows, options)
  }

  const assembleText = async (inputs: RenderedInputs, options: PrepareOptions): Promise<E.Either<Faults, Assembled>> => {
    const { text, images = [], videos = [] } = inputs
    if (text.length === 0) return leftFault('Message', 'You have to specify text.')
    const pieces = text.map((t) => placeholders(cut({ text: t, spans: [] }, []), visual))
    const wrong = mismatch(
      pieces.flat().sort(),
      [...images.map(() => 'image' as const), ...videos.map(() => 'video' as const)],
      'text'
    )
    if (wrong.length > 0) return unless(wrong, () => ({ ids: [], visuals: [], prompts: [] }))
    const [leftImages, leftVideos] = [[...images], [...videos]]
    const rows = text.map((t, i) => {
      const shown = pieces[i]!.map((kind) => (kind === 'image' ? { image: leftImages.shift()! } : { video: leftVideos.shift()! }))
      const open: Open = ({ image, video }, o) =>
        shown.map((v) => ('image' in v ? openImage(v.image, image, o) : openVideo(v.video, undefined, video, o)))
      return { prompt: E.right({ text: t, spans: [] }), open, where: `text[${i}]` }
    })
    return assemble(rows, options)
  }

  const finish = async (assembled: E.Either<Faults, Assembled>, { paddingSide = 'left' }: TextOptions) =>
    E.isLeft(assembled) ? assembled : toInputs(assembled.right, filler, paddingSide)

  return E.right({
    config,
    tokenizer,
    chatTemplate,
    render: (messages, options) =>
      E.chain((checked: Messages) => E.map(({ text }: Prompt) => text)(chatTemplate.render(checked, [], options)))(
        checkMessages(messages)
      ),
    prepare:
      (batch, options = {}) =>
      async () =>
        finish(await assembleMessages(batch, options), options),
    prepareText:
      (inputs, options = {}) =>
      async () =>
        finish(await assembleText(inputs, options), options),
    countTokens:
      (messages, options = {}) =>
      async () =>
        E.map(({ ids }: Assembled) => ids[0]!.length)(await assembleMessages([messages], options)),
    decode: tokenizer.decode,
    batchDecode: (rows, options) => rows.map((ids) => tokenizer.decode(ids, options))
  })
}

const PROBE: Messages = [{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'x' }] }]

const showsPictures = (template: E.Either<Faults, ChatTemplate>, image: string): boolean => {
  const prompt = E.chain((t: ChatTemplate) => t.render(PROBE, []))(template)
  return E.isRight(prompt) && prompt.right.text.includes(image)
}

/**
 * The folder's chat template. A folder in OpenGVLab's first layout may ship only its language model's, which knows no
 * pictures: then it is the one that config.json names.
 */
const templateOf = ({ dir, config, template }: Folder, { names }: Tokenizer): E.Either<Faults, ChatTemplate> => {
  const image = names.context_image_token ?? '<IMG_CONTEXT>'
  const shipped = template && compileTemplate(template.source, names, template.name)
  if (shipped && (!isOriginal(config) || showsPictures(shipped, image))) return shipped
  const name = isOriginal(config) ? (config as { template?: unknown }).template : undefined
  const source = originalTemplate(name, image, names.video_token ?? '<video>')
  if (source) return compileTemplate(source, names, `${dir}/config.json: template ${name}`)
  return (
    shipped ??
    leftFault('NoChatTemplate', `${dir}: no chat_template.jinja, chat_template.json, nor one in tokenizer_config.json.`, { dir })
  )
}

/** The processor of a checkpoint folder, in any of the published layouts; all that is wrong with its files otherwise. */
export const loadProcessor =
  (dir: string): TaskEither<Faults, Processor> =>
  async () => {
    const folder = await readFolder(dir)()
    if (E.isLeft(folder)) return folder
    const config = decodeProcessorConfig(folder.right)
    const tokenizer = buildTokenizer(folder.right.tokenizer, folder.right.tokenizerConfig, dir)
    const template = E.chain((t: Tokenizer) => templateOf(folder.right, t))(tokenizer)
    const parts = collect<unknown>([config, template])
    if (E.isLeft(parts)) return parts
    const [c, t] = parts.right as [ProcessorConfig, ChatTemplate]
    return E.chain((k: Tokenizer) => makeProcessor(c, k, t, dir))(tokenizer)
  }
