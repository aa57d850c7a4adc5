import type { Positions } from '../../lib/nn/rope.js'
import type { RowCache } from './batch-cache.js'
import { type GenerateOptions, isAssisted, type LogitsProcessor, maxNewTokensFor } from './generation-options.js'
import { compose, logitsProcessors } from './logits-processors.js'
import { checkOptions } from './options/check-options.js'
import { type InnerOutputsByToken, returnsInnerOutputs } from './outputs/inner-outputs.js'
import { type GenerateInputs, promptPositions, promptsOf } from './prefill.js'
import { isGuided, negativePrompts } from './prompts/guidance.js'
import { type DeviceSampling, deviceSampling } from './selection/device-sampling.js'
import { type FinishReason, type FinishRule, finishRule } from './stopping.js'

/** A token and its log-probability. */
export interface TopLogprob {
  readonly token: number
  readonly logprob: number
}

/** One decoding step: the new token of every row, undefined for rows that have finished. */
export interface Step {
  readonly tokens: ReadonlyArray<number | undefined>
  /** Log-probability of each token, with `outputLogprobs`. */
  readonly logprobs?: ReadonlyArray<number | undefined>
  /** The most probable tokens before each token, most probable first, with `topLogprobs`. */
  readonly topLogprobs?: ReadonlyArray<readonly TopLogprob[] | undefined>
}

/** The tiles of one row that the router of a Flash model compressed. */
export interface RowRouting {
  /** The router's probability p of each tile that a quarter of its tokens suffices. */
  readonly scores: readonly number[]
  /** Whether each tile was compressed to a quarter of its tokens. */
  readonly compressed: readonly boolean[]
  /** Prompt tokens after compression. */
  readonly promptTokens: number
}

export interface GenerationResult extends InnerOutputsByToken {
  /** New tokens of each row, its end token included. */
  readonly sequences: readonly (readonly number[])[]
  readonly finishReasons: readonly FinishReason[]
  /** The prompts with their last tokens healed, with `tokenHealing`. */
  readonly prompts?: readonly (readonly number[])[]
  /** Log-probability of each new token, with `outputLogprobs`. */
  readonly logprobs?: readonly (readonly number[])[]
  /**
   * With `outputAttentions`: attention weights by token and chosen layer, `[N, H, Lq, Lk]` of N rows, or of `numBeams` beams for each prompt. Lq
   * is the prompt's length for the first token (what `cache` had is not computed again), and 1 for the others. Zeros for rows that have
   * finished. The caller disposes them: `disposeResult(result)`.
   */
  readonly attentions?: InnerOutputsByToken['attentions']
  /** With `outputHiddenStates`: states `[N, Lq, D]` by token and layer, the embeddings first. Rows and owner as of `attentions`. */
  readonly hiddenStates?: InnerOutputsByToken['hiddenStates']
  /** Beam search with an output of each step: the row in `attentions` of the beam that each new token extends. */
  readonly beamIndices?: readonly (readonly number[])[]
  /** Unprocessed logits `[V]` of each new token, with `outputLogits`. */
  readonly stepLogits?: readonly (readonly Float32Array[])[]
  /** Logits `[V]` that each new token was selected from, after all processors, with `outputScores`; log-probabilities of beams. */
  readonly stepScores?: readonly (readonly Float32Array[])[]
  /** Beam search only: the sum of log-probabilities over `length ** lengthPenalty`. */
  readonly scores?: readonly number[]
  /**
   * With `returnCache`: the cache of each row; of a beam search, that of each prompt without its answer. The caller disposes each
   * by `disposeCache(cache.kv)`.
   */
  readonly cache?: readonly RowCache[]
  /** The tiles of each prompt that the router compressed, if there is a router. */
  readonly routing?: readonly RowRouting[]
}

/** Steps of one `generate` call; the return value is its result. */
export type GenerationStream = AsyncGenerator<Step, GenerationResult, void>

/** Checked options and inputs of one `generate` call, with everything that is derived from them before the first forward. */
export interface PreparedGeneration {
  readonly options: GenerateOptions
  /** Token ids of each prompt, without padding. */
  readonly prompts: readonly (readonly number[])[]
  /** Position ids of the prompts' tokens. */
  readonly positions: Positions
  /** One seed for each prompt. */
  readonly seeds: readonly number[]
  /** All logits processors composed; undefined if there are none, so that logits can stay on the device. */
  readonly logitsProcessor: LogitsProcessor | undefined
  /** Settings of the selection on the device; undefined if a processor needs the host. */
  readonly onDevice: DeviceSampling | undefined
  readonly maxNewTokens: number
  readonly finishReason: FinishRule
}

/** Checks the inputs and options of `generate`. Throws a `RangeError` that names the wrong option or input. */
export const prepareGeneration = (inputs: GenerateInputs, options: GenerateOptions): PreparedGeneration => {
  checkOptions(options)
  const prompts = promptsOf(inputs)
  const seed = options.seed ?? undefined // null, as JSON has it, is no seed
  if (typeof seed === 'object' && seed.length !== prompts.length)
    throw new RangeError(`seed: ${seed.length} seeds for ${prompts.length} rows; give one number, or one seed for each row`)
  if (isAssisted(options) && prompts.length > 1)
    throw new RangeError(
      `${options.assistantModel ? 'assistantModel' : 'promptLookupNumTokens'}: expected one prompt, got ${prompts.length}; candidates are checked for one row`
    )
  if (options.assistantModel && inputs.imageFeatures)
    throw new RangeError('assistantModel: expected pixelValues, got imageFeatures; each model encodes the images itself')
  if (isGuided(options)) negativePrompts(options, prompts) // before the prefill
  const L = inputs.inputIds.shape[1]
  const maxNewTokens = maxNewTokensFor(options, L)
  const processors = logitsProcessors(options, L, maxNewTokens)
  const randomSeed = Math.floor(Math.random() * 2 ** 53)
  return {
    options: returnsInnerOutputs(options) ? { ...options, prefillChunkSize: Number.MAX_SAFE_INTEGER } : options, // whole prompts
    prompts,
    positions: promptPositions(prompts, options, maxNewTokens),
    seeds: typeof seed === 'object' ? seed : prompts.map(() => seed ?? randomSeed),
    logitsProcessor: processors.length > 0 ? compose(processors) : undefined,
    onDevice: deviceSampling(options, L, maxNewTokens),
    maxNewTokens,
    finishReason: finishRule(options, maxNewTokens)
  }
}
