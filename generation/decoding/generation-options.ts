import { valueText } from '../../lib/error.js'
import type { KVCacheType } from '../../lib/nn/attention/kv-cache.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import type { Tokenizer } from '../../processors/text/tokenizer.js'
import type { RowCache } from './batch-cache.js'
import type { WatermarkingConfig } from './watermark/watermarking-config.js'

/** Decodes token ids to text. */
export type Decode = (ids: readonly number[]) => string

/**
 * Computes new logits `[V]` of the token after `ids`, which are prompt (without padding) and answer; the answer begins at index
 * `promptLength`. A pure function: it must not change its arguments, and may return the given logits unchanged.
 */
export type LogitsProcessor = (ids: readonly number[], logits: Float32Array, promptLength: number) => Float32Array

/** Whether a row stops after the last of `ids`, which are prompt and answer; the answer begins at index `promptLength`. */
export type StoppingCondition = (ids: readonly number[], promptLength: number) => boolean

/** A smaller model whose greedy tokens the model checks, such as a loaded checkpoint. */
export interface AssistantModel {
  readonly model: InternVL
}

export interface AllOptions {
  /** Maximum number of new tokens; by default the rest of `maxLength`, or 20 as in Transformers. */
  readonly maxNewTokens: number
  /** Maximum number of tokens of prompt (padding included) and answer. */
  readonly maxLength: number
  readonly minNewTokens: number
  readonly minLength: number
  /** End tokens: each of them finishes a row. */
  readonly eosTokenIds: readonly number[]
  /** Fills rows that finished early in `padSequences`; by default the first end token. */
  readonly padTokenId: number
  /** Sample from the distribution; by default greedy search takes the most probable token. */
  readonly doSample: boolean
  /** Divides the logits; 0 is greedy. */
  readonly temperature: number
  /** Top-k sampling: keep the k most probable tokens; 0 keeps all. 50 by default, as in Transformers. */
  readonly topK: number
  /** Nucleus sampling: keep the smallest set of most probable tokens whose probabilities sum to at least `topP`. */
  readonly topP: number
  /** Keep tokens with at least this share of the largest probability. */
  readonly minP: number
  /** Locally typical sampling: keep the smallest set of tokens nearest to the entropy with this probability mass. */
  readonly typicalP: number
  /** Epsilon sampling: keep tokens with at least this probability; 0 keeps all. */
  readonly epsilonCutoff: number
  /** Eta sampling: keep tokens with at least a probability that falls with the entropy; 0 keeps all. */
  readonly etaCutoff: number
  /** Top-h sampling: keep the most probable tokens up to this share of the entropy; 1 keeps all. */
  readonly topH: number
  /**
   * Seed of sampling. The same seed and prompt give the same tokens in any batch. A list has one seed for each
   * row. Random by default.
   */
  readonly seed: number | readonly number[]
  readonly numBeams: number
  /** The score of a beam is its log-probability over `length ** lengthPenalty`: values above 0 favour long answers. */
  readonly lengthPenalty: number
  /** Stop with `numBeams` finished answers (true), if a better one is unlikely (false, the default), or if it is impossible ('never'). */
  readonly earlyStopping: boolean | 'never'
  /** Answers for each prompt: the best beams, or independent samples. */
  readonly numReturnSequences: number
  /** Values above 1 make tokens of prompt and answer less probable. */
  readonly repetitionPenalty: number
  /** Subtracted from the logit of every token of the answer so far: values above 0 favour new tokens. -2 to 2, as in OpenAI's API. */
  readonly presencePenalty: number
  /** Subtracted from the logit of a token once for each time that the answer has the token. -2 to 2, as in OpenAI's API. */
  readonly frequencyPenalty: number
  /** Values above 1 make tokens of the prompt more probable. */
  readonly encoderRepetitionPenalty: number
  /** No n-gram of this size appears twice in prompt and answer; 0 is off. */
  readonly noRepeatNgramSize: number
  /** No n-gram of this size of the prompt appears in the answer; 0 is off. */
  readonly encoderNoRepeatNgramSize: number
  /** `[start, factor]`: after `start` new tokens the logits of end tokens rise by `factor` to the power of the tokens since. */
  readonly exponentialDecayLengthPenalty: readonly [start: number, factor: number]
  /** Maximum seconds: no further token is generated after them, and the finish reason is `length`. */
  readonly maxTime: number
  /** Tokens that are never generated. */
  readonly suppressTokens: readonly number[]
  /** Tokens that are never generated as the first token. */
  readonly beginSuppressTokens: readonly number[]
  /** Sequences of token ids that never appear. */
  readonly badWords: ReadonlyArray<readonly number[]>
  /** Transformers' name of `badWords`. */
  readonly badWordsIds: ReadonlyArray<readonly number[]>
  /** Bias added to the logit of the last token of a sequence after the tokens before it. */
  readonly sequenceBias: ReadonlyArray<readonly [ids: readonly number[], bias: number]>
  /** The answer begins with these tokens. */
  readonly forcedTokens: readonly number[]
  /** Second token of the sequence, for a prompt of one token. */
  readonly forcedBosTokenId: number
  /** One of these is the last token of an answer of `maxNewTokens`. */
  readonly forcedEosTokenIds: readonly number[]
  /** Replaces NaN and infinities in logits by finite numbers. */
  readonly removeInvalidValues: boolean
  /**
   * Classifier-free guidance: logits are moved away from those after the negative prompt, `scale · (log p − log n) + log n`. 1 is off; above 1
   * the answer follows the prompt more. A step runs the model twice.
   */
  readonly guidanceScale: number
  /** Token ids of the negative prompt, text alone: one list for all rows, or one for each. By default the last token of each prompt. */
  readonly negativePromptIds: readonly number[] | ReadonlyArray<readonly number[]>
  /** Marks the answer so that `watermarkDetector` (or `synthIdBits`) can recognise it. */
  readonly watermarkingConfig: WatermarkingConfig
  /** Replaces the last token of each prompt by the model's choice among the tokens that begin with its text; needs `tokenizer`. */
  readonly tokenHealing: boolean
  readonly tokenizer: Tokenizer
  /** Normalizes the logits to log-probabilities after all processors. */
  readonly renormalizeLogits: boolean
  /** Texts that finish a row if they appear in its answer, also across tokens, such as `</box>`; needs `decode`. */
  readonly stopStrings: readonly string[]
  /** Decodes tokens for `stopStrings`, with special tokens. */
  readonly decode: Decode
  /** Custom processors, applied after the built-in ones. */
  readonly logitsProcessors: readonly LogitsProcessor[]
  readonly stoppingConditions: readonly StoppingCondition[]
  /** Also return the log-probability of each token, from the unprocessed logits. */
  readonly outputLogprobs: boolean
  /**
   * Also return this many of the most probable tokens at each step with their log-probabilities, from the unprocessed logits; turns
   * `outputLogprobs` on. At most 100; not with beams.
   */
  readonly topLogprobs: number
  /** Also return the logits that each token was selected from, after all processors, as `stepScores`. */
  readonly outputScores: boolean
  /** Also return the unprocessed logits of each token, as `stepLogits`. */
  readonly outputLogits: boolean
  /**
   * Also return the decoder's attention weights for each token, as `attentions`: of all layers, or of those with these indices (-1 is the
   * last). The prompt is then computed in one piece.
   */
  readonly outputAttentions: boolean | readonly number[]
  /** Also return the states of the decoder's layers for each token, as `hiddenStates`. The prompt is then computed in one piece. */
  readonly outputHiddenStates: boolean
  /** Stops after the current step and keeps the tokens generated so far. */
  readonly signal: AbortSignal
  /**
   * Awaited after each step, tile and chunk of the prompt; by default the event loop runs once. With a signal or with `pause`, prompts
   * are computed in chunks.
   */
  readonly pause: () => Promise<unknown>
  /** Most prompt tokens of one forward where prompts are computed in chunks; 512 by default. */
  readonly prefillChunkSize: number
  /**
   * Prompt-lookup decoding: tokens that followed an earlier occurrence of the last n-gram are checked together, at most this many a
   * step. The tokens stay the same; texts that repeat parts of the prompt decode faster. For one row, without beams.
   */
  readonly promptLookupNumTokens: number
  /** Longest n-gram that prompt lookup searches for; 2 by default. */
  readonly maxMatchingNgramSize: number
  /** Assisted decoding: a smaller model of the same vocabulary proposes tokens. The tokens stay the same. For one row, without beams. */
  readonly assistantModel: AssistantModel
  /** Most tokens that the assistant model proposes a step; 20 by default. */
  readonly numAssistantTokens: number
  /** The assistant model stops before a token that is less probable; 0.4 by default. */
  readonly assistantConfidenceThreshold: number
  /** KV caches of earlier calls, one for each row: only tokens after the common prefix are computed. The caller still owns them. */
  readonly cache: ReadonlyArray<RowCache | undefined>
  /** Return the KV cache of each row, which the caller then owns. */
  readonly returnCache: boolean
  /**
   * Type of the keys and values in the KV cache: `float32`, `bfloat16`, `float16` (on a GPU) or `int8`. By default that of `load`: `bfloat16` where weights
   * are quantized, else `float32`. A given `cache` keeps its type.
   */
  readonly kvCache: KVCacheType
  /**
   * `dynamic`, the default: the KV cache grows with the answer. `static`: its memory for prompt and answer is reserved at once.
   * `quantized`: as `kvCache: 'int8'`. The tokens of the first two are the same.
   */
  readonly cacheImplementation: 'dynamic' | 'static' | 'quantized'
  /**
   * V2PE: position increment of an image token, above 0 and at most 1; 'auto' is the largest power of two, at least 1/256, with
   * which prompt and answer fit `maxPositionEmbeddings`. 1 by default. For models trained with V2PE; needs `imageTokenId`.
   */
  readonly visualDelta: number | 'auto'
  /** Id of the image token in the configuration; needed with `cache` and `visualDelta`. */
  readonly imageTokenId: number
  /**
   * Lower bound of the length that rotary frequencies are computed for, if these depend on the length (`dynamic`): Transformers
   * remembers the longest so far, over batches. By default the longest row of this batch.
   */
  readonly ropeLength: number
  /**
   * InternVL3.5-Flash: whether the router lets tiles without detail have a quarter of their tokens. By default what config.json says
   * (`flash_mode`). `flashRelativeThreshold` and `flashAbsoluteThreshold` are those of config.json by default.
   */
  readonly flash: boolean
  /** A tile is compressed only if its score is above this quantile of the scores of all tiles of the conversation; 0 to 1. */
  readonly flashRelativeThreshold: number
  /** A tile is compressed only if its score is at least this; 0 to 1. */
  readonly flashAbsoluteThreshold: number
  /** Number of positions of the model; a longer prompt is an error. */
  readonly maxPositionEmbeddings: number
}

/** Options of `generate`, with the names of Transformers in camel case. `generationConfig` reads them from a checkpoint. */
export type GenerateOptions = { readonly [K in keyof AllOptions]?: AllOptions[K] | undefined }

/** Throws the `RangeError` of an option with a wrong value. */
export const rejectOption = (name: keyof AllOptions, description: string, value: unknown): never => {
  throw new RangeError(`${name}: expected ${description}, got ${valueText(value)}`)
}

/** The type of the KV cache that the options ask for; undefined for the model's own. */
export const kvCacheOf = ({ kvCache, cacheImplementation }: Pick<GenerateOptions, 'kvCache' | 'cacheImplementation'>) =>
  kvCache ?? (cacheImplementation === 'quantized' ? 'int8' : undefined)

/** Whether tokens are sampled; temperature 0 is greedy. */
export const isSampling = ({ doSample = false, temperature = 1 }: GenerateOptions): boolean => doSample && temperature !== 0

/** Whether log-probabilities of tokens are returned. */
export const returnsLogprobs = ({ outputLogprobs, topLogprobs }: GenerateOptions): boolean =>
  outputLogprobs === true || (topLogprobs ?? 0) > 0

/** Whether a forward checks candidate tokens. */
export const isAssisted = (o: GenerateOptions): boolean => o.promptLookupNumTokens !== undefined || o.assistantModel !== undefined

/** Maximum number of new tokens after a padded prompt of `length` tokens. Source: `_prepare_generated_length` (transformers 5.24). */
export const maxNewTokensFor = ({ maxNewTokens, maxLength }: GenerateOptions, length: number): number => {
  const newTokens = maxNewTokens ?? (maxLength === undefined ? 20 : maxLength - length)
  if (newTokens < 1) rejectOption('maxLength', `more than the ${length} tokens of the prompt`, maxLength)
  return newTokens
}
