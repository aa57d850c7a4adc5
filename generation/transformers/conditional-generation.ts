import { causalLoss } from '../../lib/nn/losses/cross-entropy.js'
import { tf } from '../../lib/tf.js'
import type { InternVLConfig } from '../../models/config/parse-config.js'
import { load } from '../checkpoint/load.js'
import { type GenerateInputs, generate, padSequences, runToEnd } from '../decoding/generate.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { innerOutputs, withoutInnerOutputs } from '../decoding/outputs/inner-outputs.js'
import type { GenerationResult } from '../decoding/prepare-generation.js'
import { loadOptions, type PretrainedOptions } from './config-classes.js'
import {
  type CacheAndImageOutputs,
  cacheAndImageOutputs,
  type ForwardInputs,
  InternVLPreTrainedModel,
  type OpenModel
} from './model-classes.js'
import type { BaseStreamer, Decoder } from './streamer.js'

export interface CausalInputs extends ForwardInputs {
  /** `[B, L]` int32; −100 is the ignore index. The output then has a loss. */
  readonly labels?: tf.Tensor2D | undefined
  /** Number of last positions to compute logits for; all by default. */
  readonly logitsToKeep?: number | undefined
}

/** Output of `InternVLForConditionalGeneration`. The caller owns all tensors. */
export interface CausalOutput extends CacheAndImageOutputs {
  /** With `labels`: mean cross entropy over all labels but −100. */
  readonly loss?: tf.Scalar
  /** `[B, L, V]` */
  readonly logits: tf.Tensor3D
  readonly hiddenStates?: readonly tf.Tensor3D[]
  /** With `outputAttentions`: attention weights `[B, H, L, Lk]` of each layer. */
  readonly attentions?: readonly tf.Tensor4D[]
}

/** Inputs and options in one record, as `model.generate(**inputs, max_new_tokens=50)` has them. */
export interface GenerateArguments extends GenerateInputs, Omit<GenerateOptions, 'tokenizer'> {
  readonly streamer?: BaseStreamer | undefined
  /** Decodes tokens for `stopStrings`; the checkpoint's tokenizer by default, which `tokenHealing` takes always. */
  readonly tokenizer?: Decoder | undefined
  /** Return the whole result, with the outputs that the options ask for, instead of the ids. */
  readonly returnDictInGenerate?: boolean | undefined
}

/**
 * `InternVLForConditionalGeneration` of Transformers.
 *
 * `const model = await InternVLForConditionalGeneration.fromPretrained('path/to/InternVL3-1B-hf')`
 */
export class InternVLForConditionalGeneration extends InternVLPreTrainedModel {
  /** Defaults of `generate`, from generation_config.json and the model's limits. */
  readonly generationConfig: GenerateOptions

  constructor(source: InternVLConfig | OpenModel, seed = 0) {
    super(source, seed)
    this.generationConfig = ('model' in source ? source.generation : undefined) ?? { imageTokenId: this.config.imageTokenId }
  }

  /** Loads a checkpoint folder in any layout, or `org/name` of the hub. Throws one `InternVLError` with all errors. */
  static async fromPretrained(name?: string, options: PretrainedOptions = {}): Promise<InternVLForConditionalGeneration> {
    const internvl = await load(name, loadOptions(options))
    const { decode, tokenizer } = internvl.processor
    return new InternVLForConditionalGeneration({ ...internvl, generation: { decode, tokenizer, ...internvl.generation } })
  }

  forward({ labels, logitsToKeep, ...inputs }: CausalInputs): CausalOutput {
    return tf.tidy(() => {
      const { embeds, features } = this.embed(inputs)
      const decoderOptions = logitsToKeep === undefined ? {} : { logitsToKeep }
      const { logits, cache, ...inner } = this.internvl.decode(embeds, { ...this.decoding(inputs), ...decoderOptions })
      const output = {
        ...(labels ? { loss: causalLoss(logits, labels) } : {}),
        logits,
        ...innerOutputs(inner),
        ...cacheAndImageOutputs(cache, features)
      }
      return output as unknown as tf.TensorContainer
    }) as unknown as CausalOutput
  }

  /**
   * Ids of prompt and answer, padding included, one row an answer: `ids[0].slice(inputIds.shape[1])` is the answer alone.
   * With `returnDictInGenerate` a result whose `sequences` are these ids. Throws a `RangeError` that names the wrong option or input.
   */
  async generate(args: GenerateArguments & { readonly returnDictInGenerate: true }): Promise<GenerationResult>
  async generate(args: GenerateArguments): Promise<readonly (readonly number[])[]>
  async generate({
    streamer,
    tokenizer,
    returnDictInGenerate = false,
    ...args
  }: GenerateArguments): Promise<GenerationResult | readonly (readonly number[])[]> {
    const decoding = tokenizer ? { decode: (ids: readonly number[]) => tokenizer.decode(ids) } : {}
    const inner = returnDictInGenerate ? {} : withoutInnerOutputs // their tensors would have no owner
    const options = { ...this.generationConfig, ...decoding, ...args, ...inner }
    const prompts = args.inputIds.arraySync()
    if (streamer && prompts.length * (options.numReturnSequences ?? 1) > 1)
      throw new RangeError('streamer: a streamer takes one row; give one prompt and numReturnSequences 1')
    if (streamer && (options.numBeams ?? 1) > 1)
      throw new RangeError('streamer: a streamer cannot be used with beam search; set numBeams to 1')
    const steps = generate(this.internvl, args, options)
    streamer?.put(prompts[0]!)
    const result = await runToEnd(steps, ({ tokens }) =>
      streamer?.put(tokens.flatMap((token) => (token === undefined ? [] : [token])))
    )
    streamer?.end()
    const { sequences, prompts: healed = prompts } = result
    const answers = padSequences(sequences, options)
    const answersPerPrompt = answers.length / prompts.length
    const ids = answers.map((answer, row) => [...healed[Math.floor(row / answersPerPrompt)]!, ...answer])
    return returnDictInGenerate ? { ...result, sequences: ids } : ids
  }
}

/** `AutoModelForImageTextToText` of Transformers. */
export const AutoModelForImageTextToText = { fromPretrained: InternVLForConditionalGeneration.fromPretrained } as const
