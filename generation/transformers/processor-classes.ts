import { getOrThrow, orThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import type { ImageSource } from '../../processors/image/image.js'
import {
  type LoadProcessorOptions,
  loadProcessor,
  type ModelInputs,
  type PrepareOptions,
  type Processor,
  type Prompt
} from '../../processors/processor.js'
import type { RenderOptions } from '../../processors/text/chat-template.js'
import type { Message, Messages, VideoSource } from '../../processors/text/messages.js'
import { type HubOptions, modelFolder } from '../hub/index.js'

/** Inputs of the model; `dispose` frees the tensors. */
export interface BatchFeature extends ModelInputs {
  readonly dispose: () => void
}

export interface ApplyChatTemplateOptions extends PrepareOptions {
  /** Return token ids and pixels instead of the prompt's text; false by default, as in Python. */
  readonly tokenize?: boolean
  /** With `tokenize`: return all inputs of the model instead of the ids only; false by default, as in Python. */
  readonly returnDict?: boolean
  /** Accepted for compatibility: rows of a batch are always padded. */
  readonly padding?: true
}

export interface DecodeOptions {
  readonly skipSpecialTokens?: boolean
}

type Ids = readonly number[] | tf.Tensor1D
type Conversation = Messages | readonly Messages[]

const isBatch = (conversation: Conversation): conversation is readonly Messages[] => Array.isArray(conversation[0])

const toList = (ids: Ids): readonly number[] => (ids instanceof tf.Tensor ? Array.from(ids.dataSync()) : ids)

const toBatchFeature = (inputs: ModelInputs): BatchFeature => ({
  ...inputs,
  dispose: () => tf.dispose([inputs.inputIds, inputs.attentionMask, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
})

/**
 * `InternVLProcessor` of Transformers. Throws an `InternVLError` for messages and images that cannot be read. One deliberate
 * difference: special tokens in message texts stay text unless `allowedSpecial` permits them.
 */
export class InternVLProcessor {
  constructor(readonly processor: Processor) {}

  /** Loads the processor of a checkpoint folder, or of `org/name` of the hub. */
  static async fromPretrained(name: string, options: HubOptions & LoadProcessorOptions = {}): Promise<InternVLProcessor> {
    return new InternVLProcessor(await orThrow(loadProcessor(await orThrow(modelFolder(name, options)), options)))
  }

  get tokenizer(): Processor['tokenizer'] {
    return this.processor.tokenizer
  }

  /** Jinja source of the chat template. */
  get chatTemplate(): string {
    return this.processor.chatTemplate.source
  }

  /** Renders one conversation or a batch: the prompt, its ids, or with `returnDict` all inputs of the model. */
  applyChatTemplate(
    conversation: Conversation,
    options: ApplyChatTemplateOptions & { readonly tokenize: true; readonly returnDict: true }
  ): Promise<BatchFeature>
  applyChatTemplate(
    conversation: Conversation,
    options: ApplyChatTemplateOptions & { readonly tokenize: true }
  ): Promise<readonly (readonly number[])[]>
  applyChatTemplate(conversation: readonly Message[], options?: RenderOptions & { readonly tokenize?: false }): string
  applyChatTemplate(conversation: readonly Messages[], options?: RenderOptions & { readonly tokenize?: false }): readonly string[]
  applyChatTemplate(
    conversation: Conversation,
    { tokenize, returnDict, ...given }: ApplyChatTemplateOptions = {}
  ): string | readonly string[] | Promise<BatchFeature | readonly (readonly number[])[]> {
    const options = { addGenerationPrompt: false, ...given }
    const batch = isBatch(conversation) ? conversation : [conversation]
    if (tokenize) return this.tokenized(batch, options, returnDict ?? false)
    const prompts = batch.map((messages) => getOrThrow(this.processor.render(messages, options)))
    return isBatch(conversation) ? prompts : prompts[0]!
  }

  private async tokenized(batch: readonly Messages[], options: PrepareOptions, returnDict: boolean) {
    const feature = toBatchFeature(await orThrow(this.processor.prepare(batch, options)))
    if (returnDict) return feature
    const ids = feature.inputIds.arraySync()
    feature.dispose()
    return ids
  }

  /**
   * Renders a conversation to a prompt for `process` that tells typed text from the template's: special tokens that a user typed stay text, as
   * with `tokenize: true`. Transformers has no counterpart.
   */
  renderPrompt(messages: Messages, options: RenderOptions = {}): Prompt {
    return getOrThrow(this.processor.renderPrompt(messages, { addGenerationPrompt: false, ...options }))
  }

  /**
   * Prompts with the images and videos of their placeholders, in order: `processor(text=…, images=…, videos=…)` in Python. In a string every
   * special token is a token, a typed one too; a prompt of `renderPrompt` is safe for typed text.
   */
  async process(
    inputs: {
      readonly text: string | Prompt | readonly (string | Prompt)[]
      readonly images?: ImageSource | readonly ImageSource[]
      readonly videos?: readonly VideoSource[]
    },
    options: PrepareOptions = {}
  ): Promise<BatchFeature> {
    const text = Array.isArray(inputs.text) ? (inputs.text as readonly (string | Prompt)[]) : [inputs.text as string | Prompt]
    const images = inputs.images === undefined ? [] : ([inputs.images].flat() as readonly ImageSource[])
    return toBatchFeature(await orThrow(this.processor.prepareText({ text, images, videos: inputs.videos ?? [] }, options)))
  }

  /** Decodes one row of ids. */
  decode(ids: Ids, options: DecodeOptions = {}): string {
    return this.processor.decode(toList(ids), options)
  }

  /** Decodes every row of ids. */
  batchDecode(rows: readonly Ids[] | tf.Tensor2D, options: DecodeOptions = {}): readonly string[] {
    const lists = rows instanceof tf.Tensor ? rows.arraySync() : rows
    return lists.map((ids) => this.decode(ids, options))
  }
}

/** `AutoProcessor` of Transformers. */
export const AutoProcessor = { fromPretrained: InternVLProcessor.fromPretrained } as const
