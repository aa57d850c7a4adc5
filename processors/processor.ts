import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, whenValid } from '../lib/error.js'
import { invalid } from './collect.js'
import { type Folder, readFolder } from './config/checkpoint-folder.js'
import { decodeProcessorConfig, isOriginal, type ProcessorConfig } from './config/processor-config.js'
import {
  type Assembled,
  assembleLesson,
  assembleMessages,
  assembleText,
  type PrepareOptions,
  type RenderedInputs
} from './encode.js'
import type { Visual } from './media/open-media.js'
import { type ModelInputs, toInputs } from './model-inputs.js'
import { type ChatTemplate, compileTemplate, type Prompt, type RenderOptions } from './text/chat-template.js'
import type { Labelled } from './text/labels.js'
import { checkMessages, type Messages } from './text/messages.js'
import { controlTokens, cutter, visualTokens } from './text/placeholders.js'
import { originalTemplate, publishedTemplate } from './text/published-templates.js'
import { buildTokenizer, type Tokenizer } from './text/tokenizer.js'

export type { PrepareOptions, RenderedInputs, TextOptions } from './encode.js'
export type { ModelInputs } from './model-inputs.js'

/** A conversation as numbers, its pictures not yet read. */
export interface EncodedConversation extends Labelled {
  /** In the order of their placeholders. */
  readonly visuals: readonly Visual[]
}

export interface Processor {
  readonly config: ProcessorConfig
  readonly tokenizer: Tokenizer
  readonly chatTemplate: ChatTemplate
  /** The prompt of a conversation, equal to `apply_chat_template(…, tokenize=False)`. */
  readonly render: (messages: Messages, options?: RenderOptions) => E.Either<Issues, string>
  /** Conversations, one a row, with their pictures and films, as the model takes them. */
  readonly prepare: (batch: readonly Messages[], options?: PrepareOptions) => TaskEither<Issues, ModelInputs>
  /** The same from prompts already rendered. Source: `InternVLProcessor.__call__` (transformers 5.23). */
  readonly prepareText: (inputs: RenderedInputs, options?: PrepareOptions) => TaskEither<Issues, ModelInputs>
  /**
   * A conversation to learn from: ids, labels (the answers' tokens and what ends them, −100 elsewhere), and its pictures, not yet
   * read. Tokens of grounding (`<ref>`, `<box>`, …) in it are tokens unless `allowedSpecial` says otherwise.
   */
  readonly encode: (messages: Messages, options?: PrepareOptions) => TaskEither<Issues, EncodedConversation>
  /** Length of the prompt in tokens, pictures included; of pictures only the headers are read. */
  readonly countTokens: (messages: Messages, options?: PrepareOptions) => TaskEither<Issues, number>
  /** Text of ids; `skipSpecialTokens` is false unless given. */
  readonly decode: (ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }) => string
  readonly batchDecode: (
    rows: readonly (readonly number[])[],
    options?: { readonly skipSpecialTokens?: boolean }
  ) => readonly string[]
}

/** A processor of its parts. Errors: picture tokens that the vocabulary lacks. */
export const makeProcessor = (
  config: ProcessorConfig,
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate,
  dir: string
): E.Either<Issues, Processor> => {
  const tokens = visualTokens(tokenizer, dir)
  if (E.isLeft(tokens)) return tokens
  const visual = tokens.right
  const control = controlTokens(tokenizer, visual, chatTemplate)
  const parts = { config, tokenizer, chatTemplate, visual, control, cut: cutter(tokenizer, visual) }
  const { names, idOf } = tokenizer
  const filler = idOf(names.pad_token ?? '') ?? idOf(names.eos_token ?? '') ?? 0
  const finish = async (assembled: E.Either<Issues, Assembled>, { paddingSide = 'left' }: PrepareOptions) =>
    E.isLeft(assembled) ? assembled : toInputs(assembled.right, filler, paddingSide)
  const length = ({ ids }: Assembled): number => ids[0]!.length
  const rendered = (options?: RenderOptions) => (messages: Messages) =>
    E.map(({ text }: Prompt) => text)(chatTemplate.render(messages, [], options))
  return E.right({
    config,
    tokenizer,
    chatTemplate,
    render: (messages, options) => E.chain(rendered(options))(checkMessages(messages)),
    prepare:
      (batch, o = {}) =>
      async () =>
        finish(await assembleMessages(parts, batch, o), o),
    prepareText:
      (inputs, o = {}) =>
      async () =>
        finish(await assembleText(parts, inputs, o), o),
    encode:
      (messages, o = {}) =>
      async () =>
        E.map(({ ids, labels, visuals }: Assembled) => ({ ids: ids[0]!, labels: labels[0]!, visuals }))(
          await assembleLesson(parts, messages, o)
        ),
    countTokens:
      (messages, o = {}) =>
      async () =>
        E.map(length)(await assembleMessages(parts, [messages], o)),
    decode: tokenizer.decode,
    batchDecode: (rows, options) => rows.map((ids) => tokenizer.decode(ids, options))
  })
}

const PROBE: Messages = [{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'x' }] }]

const showsPictures = (template: E.Either<Issues, ChatTemplate>, image: string): boolean => {
  const prompt = E.chain((t: ChatTemplate) => t.render(PROBE, []))(template)
  return E.isRight(prompt) && prompt.right.text.includes(image)
}

/**
 * The folder's chat template. A folder in OpenGVLab's first layout may ship only its language model's, which knows no
 * pictures: then it is the one that config.json names. A folder that lost its template, but whose tokenizer has the tokens of
 * the published one, gets that.
 */
const templateOf = ({ dir, config, template }: Folder, { names, idOf }: Tokenizer): E.Either<Issues, ChatTemplate> => {
  const [image, video] = [names.context_image_token ?? '<IMG_CONTEXT>', names.video_token ?? '<video>']
  const shipped = template && compileTemplate(template.source, names, template.name)
  if (shipped && (!isOriginal(config) || showsPictures(shipped, image))) return shipped
  const name = isOriginal(config) ? (config as { template?: unknown }).template : undefined
  const source = originalTemplate(name, image, video)
  if (source) return compileTemplate(source, names, `${dir}/config.json: template ${name}`)
  if (shipped) return shipped
  if (name === undefined && ['<|im_start|>', '<|im_end|>'].every((token) => idOf(token) !== undefined))
    return compileTemplate(publishedTemplate(image, video), names, 'the template of the published checkpoints')
  return invalid('NoChatTemplate', `${dir}: no chat_template.jinja, chat_template.json, nor one in tokenizer_config.json.`, {
    dir
  })
}

const templateNames = ['chat_template.jinja', 'chat_template.json', 'processor_config.json', 'tokenizer_config.json']
const configNames = ['processor_config.json', 'preprocessor_config.json', 'video_preprocessor_config.json']

/** A part that is made of some files, or what is wrong with it; nothing where one of them could not even be read. */
const partOf = <A>({ issues }: Folder, names: readonly string[], read: () => E.Either<Issues, A> | undefined) =>
  names.some((name) => issues.has(name)) ? undefined : read()

const issuesOf = (part: E.Either<Issues, unknown> | undefined): readonly Issue[] => (part && E.isLeft(part) ? part.left : [])

/** The template, as far as it can be told without a tokenizer: then only whether it is one. */
const templateWith = (
  folder: Folder,
  tokenizer: E.Either<Issues, Tokenizer> | undefined
): E.Either<Issues, ChatTemplate> | undefined => {
  if (tokenizer && E.isRight(tokenizer)) return templateOf(folder, tokenizer.right)
  return folder.template && compileTemplate(folder.template.source, {}, folder.template.name)
}

/** The processor of a checkpoint folder, in any of the published layouts; all that is wrong with its files otherwise. */
export const loadProcessor =
  (dir: string): TaskEither<Issues, Processor> =>
  async () => {
    const folder = await readFolder(dir)
    const isTold = (folder.processor ?? folder.preprocessor) !== undefined // else config.json may tell
    const config = partOf(folder, isTold ? configNames : ['config.json', ...configNames], () => decodeProcessorConfig(folder))
    const tokenizer = partOf(folder, ['tokenizer.json'], () => buildTokenizer(folder.tokenizer, folder.tokenizerConfig, dir))
    const template = partOf(folder, folder.template ? [] : templateNames, () => templateWith(folder, tokenizer))
    const pictures = tokenizer && E.chain((k: Tokenizer) => visualTokens(k, dir))(tokenizer)
    const issues = [...folder.issues.values(), ...[config, pictures, template].map(issuesOf)].flat()
    const right = <A>(part: E.Either<Issues, A> | undefined): A => (part as E.Right<A>).right
    return E.flatten(whenValid(issues, () => makeProcessor(right(config), right(tokenizer), right(template), dir)))
  }
