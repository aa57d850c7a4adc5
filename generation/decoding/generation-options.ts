import type { RowCache } from './batch-cache.js'
import type { Decode, LogitsProcessor, StoppingCondition } from './step.js'

interface AllOptions {
  /** Tokens to make at most; else what `maxLength` leaves, else 20, as in Transformers. */
  readonly maxNewTokens: number
  /** Tokens of prompt (padding included) and answer at most. */
  readonly maxLength: number
  readonly minNewTokens: number
  readonly minLength: number
  /** A row ends with any of these. */
  readonly eosTokenIds: readonly number[]
  /** Fills up rows that ended early, where they are made one table: `padSequences`. Else the first end token. */
  readonly padTokenId: number
  /** Draw from the distribution; else the most probable token is taken. */
  readonly doSample: boolean
  /** Divides the logits; 0 is greedy. */
  readonly temperature: number
  /** The most probable so many; 0 is all. 50 by default, as in Transformers. */
  readonly topK: number
  /** The fewest most probable tokens that have this probability together. */
  readonly topP: number
  /** Tokens with at least this share of the greatest probability. */
  readonly minP: number
  /** The fewest tokens nearest to the expected information that have this probability together. */
  readonly typicalP: number
  /** Same seed, same prompt, same tokens: whatever else is in the batch. A list has one for each row. Without it, by chance. */
  readonly seed: number | readonly number[]
  readonly numBeams: number
  /** A beam's score is its log-probability over `length ** lengthPenalty`: above 0 favours long answers. */
  readonly lengthPenalty: number
  /** Stop when there are `numBeams` answers (true), when a better one is unlikely (false), or impossible ('never'). */
  readonly earlyStopping: boolean | 'never'
  /** Answers for each row: so many best beams, or so many samples. */
  readonly numReturnSequences: number
  /** Above 1 makes tokens of prompt and answer less probable. */
  readonly repetitionPenalty: number
  /** No sequence of so many tokens comes twice in prompt and answer; 0 is off. */
  readonly noRepeatNgramSize: number
  readonly suppressTokens: readonly number[]
  /** Not as the first token. */
  readonly beginSuppressTokens: readonly number[]
  /** Sequences of ids that never appear. */
  readonly badWords: ReadonlyArray<readonly number[]>
  /** Added to the logit of the last token of a sequence where the tokens before it stand. */
  readonly sequenceBias: ReadonlyArray<readonly [ids: readonly number[], bias: number]>
  /** The answer begins with these. */
  readonly forcedTokens: readonly number[]
  /** The second token of all, where a prompt has one. */
  readonly forcedBosTokenId: number
  /** At the last place of `maxNewTokens`. */
  readonly forcedEosTokenIds: readonly number[]
  /** NaN and infinities in logits become finite. */
  readonly removeInvalidValues: boolean
  /** Log-probabilities that sum to one after all processors. */
  readonly renormalizeLogits: boolean
  /** Texts that end a row when they appear in its answer, across tokens too; needs `decode`. */
  readonly stopStrings: readonly string[]
  readonly decode: Decode
  /** After the built-in ones. */
  readonly logitsProcessors: readonly LogitsProcessor[]
  readonly stoppingConditions: readonly StoppingCondition[]
  /** Also the log-probability of each token, by the model's own logits. */
  readonly outputLogprobs: boolean
  /** Stops after the current step and keeps what was made. */
  readonly signal: AbortSignal
  /** What earlier runs left, one for each row where there is one: only tokens after a common prefix are computed. The caller's. */
  readonly cache: ReadonlyArray<RowCache | undefined>
  /** The result carries each row's cache, which is then the caller's. */
  readonly returnCache: boolean
  /**
   * V2PE: how far an image token advances the position, above 0 and at most 1; 'auto' is the largest power of two, down to 1/256,
   * with which prompt and answer fit `maxPositionEmbeddings`. 1 by default. For models that were trained so; needs `imageTokenId`.
   */
  readonly visualDelta: number | 'auto'
  /** Of the configuration: which tokens stand for pictures. Needed with `cache` and `visualDelta`. */
  readonly imageTokenId: number
  /**
   * Rotary frequencies for at least so many positions, where they depend on the length (`dynamic`): Transformers remembers the
   * longest so far, over batches. By default the longest row of this batch.
   */
  readonly ropeLength: number
  /** Of the configuration: a longer prompt is refused. */
  readonly maxPositionEmbeddings: number
}

/** How to generate; the names are Transformers', in camel case. `generationConfig` reads them from a checkpoint. */
export type GenerateOptions = { readonly [K in keyof AllOptions]?: AllOptions[K] | undefined }

/** Names of the options that are numbers. */
type NumberOption = { [K in keyof AllOptions]: AllOptions[K] extends number ? K : never }[keyof AllOptions]

interface Range {
  readonly says: string
  readonly holds: (n: number) => boolean
}
const positive: Range = { says: 'an integer, 1 or more', holds: (n) => Number.isSafeInteger(n) && n >= 1 }
const natural: Range = { says: 'an integer, 0 or more', holds: (n) => Number.isSafeInteger(n) && n >= 0 }
const aboveZero: Range = { says: 'above 0', holds: (n) => n > 0 && Number.isFinite(n) }
const share: Range = { says: 'above 0 and at most 1', holds: (n) => n > 0 && n <= 1 }

const ranges: { readonly [K in NumberOption]?: Range } = {
  maxNewTokens: positive,
  maxLength: positive,
  minNewTokens: natural,
  minLength: natural,
  temperature: { says: '0 (greedy) or more', holds: (n) => n >= 0 && Number.isFinite(n) },
  topK: natural,
  topP: share,
  minP: { says: 'between 0 and 1', holds: (n) => n >= 0 && n <= 1 },
  typicalP: share,
  numBeams: positive,
  numReturnSequences: positive,
  lengthPenalty: { says: 'a finite number', holds: Number.isFinite },
  repetitionPenalty: aboveZero,
  noRepeatNgramSize: natural,
  padTokenId: natural,
  forcedBosTokenId: natural,
  imageTokenId: natural,
  ropeLength: natural,
  maxPositionEmbeddings: positive
}

const refuse = (name: keyof AllOptions, says: string, value: unknown): never => {
  const shown = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value)) // JSON has no NaN
  throw new RangeError(`${name}: it should be ${says}; it is ${shown}`)
}

const idLists = ['eosTokenIds', 'suppressTokens', 'beginSuppressTokens', 'forcedTokens', 'forcedEosTokenIds'] as const

const checkVisualDelta = ({ visualDelta: delta, imageTokenId, maxPositionEmbeddings }: GenerateOptions): void => {
  if (delta === undefined) return
  if (delta !== 'auto' && !(typeof delta === 'number' && share.holds(delta)))
    refuse('visualDelta', `${share.says}, or 'auto'`, delta)
  if (imageTokenId === undefined) refuse('imageTokenId', 'given with visualDelta', imageTokenId)
  if (delta === 'auto' && maxPositionEmbeddings === undefined)
    refuse('maxPositionEmbeddings', "given with visualDelta 'auto'", maxPositionEmbeddings)
}

/** Throws a `RangeError` that names the first option whose value makes no sense. */
export const checkOptions = (o: GenerateOptions): void => {
  for (const [name, range] of Object.entries(ranges) as [NumberOption, Range][]) {
    const value = o[name]
    if (value !== undefined && !(typeof value === 'number' && range.holds(value))) refuse(name, range.says, value)
  }
  for (const name of idLists) if (o[name]?.some((id) => !natural.holds(id))) refuse(name, 'a list of token ids', o[name])
  if (![o.seed ?? 0].flat().every(Number.isSafeInteger)) refuse('seed', 'a whole number, or a list of them', o.seed)
  if (![undefined, true, false, 'never'].includes(o.earlyStopping))
    refuse('earlyStopping', "true, false or 'never'", o.earlyStopping)
  checkVisualDelta(o)
  if (o.badWords?.some((ids) => ids.length === 0 || !ids.every(natural.holds)))
    refuse('badWords', 'lists of token ids', o.badWords)
  if (o.stopStrings?.some((text) => text === '')) refuse('stopStrings', 'texts that are not empty', o.stopStrings)
  if (o.stopStrings?.length && !o.decode) refuse('decode', 'given with stopStrings', o.decode)
  const [beams, answers] = [o.numBeams ?? 1, o.numReturnSequences ?? 1]
  if (answers > beams && !(beams === 1 && isSampling(o)))
    refuse('numReturnSequences', `at most numBeams, ${beams}, unless tokens are drawn (doSample)`, answers)
}

/** Whether tokens are drawn: a temperature of 0 is greedy. */
export const isSampling = ({ doSample = false, temperature = 1 }: GenerateOptions): boolean => doSample && temperature !== 0

/** Tokens to make at most for a padded prompt of `length`. Source: `_prepare_generated_length` (transformers 5.23). */
export const newTokensAllowed = ({ maxNewTokens, maxLength }: GenerateOptions, length: number): number => {
  const allowed = maxNewTokens ?? (maxLength === undefined ? 20 : maxLength - length)
  if (allowed < 1) refuse('maxLength', `more than the prompt's ${length} tokens`, maxLength)
  return allowed
}
