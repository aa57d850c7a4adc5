import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { distinctIssues, type Issues, inputIssues, invalid, validation, whenValid } from '../lib/error.js'
import { type ProcessorFolder, readProcessorFolder } from './config/checkpoint-folder.js'
import { decodeProcessorConfig, isOriginal, type ProcessorConfig } from './config/processor-config.js'
import {
  type EncodedBatch,
  type EncodedConversation,
  encodeMessages,
  encodeRendered,
  encodeWithLabels,
  type PrepareOptions,
  type ProcessorParts,
  type RenderedInputs
} from './encode.js'
import { checkedBackend, type ImageBackend } from './image/image-backend.js'
import { type ModelInputs, toModelInputs } from './model-inputs.js'
import { type ChatTemplate, compileTemplate, type Prompt, type RenderOptions } from './text/chat-template.js'
import { checkMessages, type Messages } from './text/messages.js'
import { controlTokens, specialTokenSplitter, visualTokens, visualTokenText } from './text/placeholders.js'
import { originalTemplate, publishedTemplate } from './text/published-templates.js'
import { buildTokenizer, type Tokenizer } from './text/tokenizer.js'

export type { EncodedBatch, EncodedConversation, PrepareOptions, RenderedInputs, TextOptions } from './encode.js'
export type { ModelInputs } from './model-inputs.js'
export type { Prompt } from './text/chat-template.js'

export interface Processor {
  readonly config: ProcessorConfig
  readonly tokenizer: Tokenizer
  readonly chatTemplate: ChatTemplate
  /**
   * Renders a conversation to the text of its prompt, equal to `apply_chat_template(…, tokenize=False)`. The text does not tell which special
   * tokens a user typed: to encode it, take `renderPrompt`.
   */
  readonly render: (messages: Messages, options?: RenderOptions) => E.Either<Issues, string>
  /**
   * Renders a conversation to its prompt with the ranges of message texts. `prepareText` and `encodeText` take the prompt, and treat special
   * tokens that a user typed as text: the two steps together give what `prepare` and `encodeBatch` give. Text may be added at the end of
   * `text`.
   */
  readonly renderPrompt: (messages: Messages, options?: RenderOptions) => E.Either<Issues, Prompt>
  /** Prepares a batch of conversations, one per row, with their images and videos as model inputs. */
  readonly prepare: (batch: readonly Messages[], options?: PrepareOptions) => TE.TaskEither<Issues, ModelInputs>
  /** Prepares rendered prompts as model inputs. Source: `InternVLProcessor.__call__` (transformers 5.24). */
  readonly prepareText: (inputs: RenderedInputs, options?: PrepareOptions) => TE.TaskEither<Issues, ModelInputs>
  /** Encodes a batch of conversations to plain token ids; images and videos are opened but not decoded. */
  readonly encodeBatch: (batch: readonly Messages[], options?: PrepareOptions) => TE.TaskEither<Issues, EncodedBatch>
  /** Encodes rendered prompts to plain token ids; images and videos are opened but not decoded. */
  readonly encodeText: (inputs: RenderedInputs, options?: PrepareOptions) => TE.TaskEither<Issues, EncodedBatch>
  /**
   * Encodes a conversation for training: ids and labels (the tokens of the answers and of their ends, −100 elsewhere). Images and
   * videos are not decoded.
   */
  readonly encode: (messages: Messages, options?: PrepareOptions) => TE.TaskEither<Issues, EncodedConversation>
  /** Length of the prompt in tokens, including images and videos; only the headers of images are read. */
  readonly countTokens: (messages: Messages, options?: PrepareOptions) => TE.TaskEither<Issues, number>
  /** Decodes ids to text. Default of `skipSpecialTokens`: false. */
  readonly decode: (ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }) => string
  readonly batchDecode: (
    rows: readonly (readonly number[])[],
    options?: { readonly skipSpecialTokens?: boolean }
  ) => readonly string[]
}

const processorOf = (parts: ProcessorParts): Processor => {
  const { config, tokenizer, chatTemplate } = parts
  const { names, idOf } = tokenizer
  const padId = idOf(names.pad_token ?? '') ?? idOf(names.eos_token ?? '') ?? 0
  const toInputs = ({ paddingSide = tokenizer.paddingSide ?? 'left' }: PrepareOptions) =>
    TE.chain((encoded: EncodedBatch) => toModelInputs(encoded, padId, paddingSide))
  return {
    config,
    tokenizer,
    chatTemplate,
    render: (messages, options) =>
      pipe(
        checkMessages(messages),
        E.chain((valid) => chatTemplate.render(valid, [], options)),
        E.map(({ text }) => text),
        E.mapLeft(inputIssues)
      ),
    renderPrompt: (messages, options) =>
      pipe(
        checkMessages(messages),
        E.chain((valid) => chatTemplate.render(valid, parts.control, options)),
        E.mapLeft(inputIssues)
      ),
    prepare: (batch, options = {}) => pipe(encodeMessages(parts, batch, options), toInputs(options), TE.mapLeft(inputIssues)),
    prepareText: (inputs, options = {}) =>
      pipe(encodeRendered(parts, inputs, options), toInputs(options), TE.mapLeft(inputIssues)),
    encodeBatch: (batch, options = {}) => pipe(encodeMessages(parts, batch, options), TE.mapLeft(inputIssues)),
    encodeText: (inputs, options = {}) => pipe(encodeRendered(parts, inputs, options), TE.mapLeft(inputIssues)),
    encode: (messages, options = {}) => pipe(encodeWithLabels(parts, messages, options), TE.mapLeft(inputIssues)),
    countTokens: (messages, options = {}) =>
      pipe(
        encodeMessages(parts, [messages], options),
        TE.map(({ ids }) => ids[0]!.length),
        TE.mapLeft(inputIssues)
      ),
    decode: tokenizer.decode,
    batchDecode: (rows, options) => rows.map((ids) => tokenizer.decode(ids, options))
  }
}

/** Builds a processor from its parts. Errors: visual tokens that the vocabulary lacks. */
export const makeProcessor = (
  config: ProcessorConfig,
  tokenizer: Tokenizer,
  chatTemplate: ChatTemplate,
  dir: string
): E.Either<Issues, Processor> =>
  pipe(
    visualTokens(tokenizer, dir, config.imagePlaceholder),
    E.map((visual) => {
      const control = controlTokens(tokenizer, visual, chatTemplate)
      return { config, tokenizer, chatTemplate, visual, control, splitPrompt: specialTokenSplitter(tokenizer, visual) }
    }),
    E.map(processorOf)
  )

const IMAGE_MESSAGE: Messages = [{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'x' }] }]

/** Whether a template writes the placeholder of an image item. */
const rendersImages = (template: E.Either<Issues, ChatTemplate>, placeholder: string): boolean =>
  pipe(
    template,
    E.chain((t) => t.render(IMAGE_MESSAGE, [])),
    E.exists(({ text }) => text.includes(placeholder))
  )

/**
 * The chat template of a checkpoint folder. A folder in OpenGVLab's layout may contain only its language model's template, which
 * ignores images; then the conversation template named by config.json is used. A folder without a template whose tokenizer has
 * ChatML's tokens gets the template of the published checkpoints.
 */
const templateOf = ({ dir, config, template }: ProcessorFolder, { names, idOf }: Tokenizer): E.Either<Issues, ChatTemplate> => {
  const [image, video] = [visualTokenText(names, 'context_image_token'), visualTokenText(names, 'video_token')]
  const shipped = template && compileTemplate(template.source, names, template.name)
  if (shipped && (!isOriginal(config) || rendersImages(shipped, image))) return shipped
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

/** Reads a part of the processor; its errors are those of the files that it depends on, where there are any. */
const partOf = <A>({ issues }: ProcessorFolder, names: readonly string[], read: () => E.Either<Issues, A>): E.Either<Issues, A> =>
  E.flatten(
    whenValid(
      names.flatMap((name) => issues.get(name) ?? []),
      read
    )
  )

/** The chat template. Without a valid tokenizer, only the template's syntax is checked. */
const checkedTemplate = (folder: ProcessorFolder, tokenizer: E.Either<Issues, Tokenizer>): E.Either<Issues, ChatTemplate> => {
  if (E.isRight(tokenizer)) return templateOf(folder, tokenizer.right)
  if (!folder.template) return tokenizer
  return pipe(
    compileTemplate(folder.template.source, {}, folder.template.name),
    E.chain(() => tokenizer)
  )
}

export interface LoadProcessorOptions {
  /** Backend of images in calls that name none; default: torchvision, as Transformers. */
  readonly imageBackend?: ImageBackend | undefined
}

const withBackend = (config: ProcessorConfig, backend: ImageBackend | undefined): E.Either<Issues, ProcessorConfig> =>
  pipe(
    checkedBackend(backend ?? config.image.imageBackend),
    E.map((imageBackend) => ({ ...config, image: { ...config.image, imageBackend } }))
  )

/** Loads the processor of a checkpoint folder in any of the published layouts. Errors: all errors of its files, and of the options. */
export const loadProcessor =
  (dir: string, { imageBackend }: LoadProcessorOptions = {}): TE.TaskEither<Issues, Processor> =>
  async () => {
    const folder = await readProcessorFolder(dir)
    const hasProcessorFiles = (folder.processor ?? folder.preprocessor) !== undefined // else config.json has the settings
    const configFiles = hasProcessorFiles ? configNames : ['config.json', ...configNames]
    const tokenizer = partOf(folder, ['tokenizer.json'], () => buildTokenizer(folder.tokenizer, folder.tokenizerConfig, dir))
    return pipe(
      sequenceS(validation)({
        files: whenValid([...folder.issues.values()].flat(), () => folder),
        config: pipe(
          partOf(folder, configFiles, () => decodeProcessorConfig(folder)),
          E.chain((config) => withBackend(config, imageBackend))
        ),
        tokenizer: pipe(
          tokenizer,
          E.chainFirst((valid) => visualTokens(valid, dir))
        ),
        template: partOf(folder, folder.template ? [] : templateNames, () => checkedTemplate(folder, tokenizer))
      }),
      E.mapLeft(distinctIssues), // parts that share a file share its errors
      E.chain((parts) => makeProcessor(parts.config, parts.tokenizer, parts.template, dir))
    )
  }
