import type { AllOptions } from '../generation-options.js'

/** Names of the numeric options. */
export type NumberOption = { [K in keyof AllOptions]: AllOptions[K] extends number ? K : never }[keyof AllOptions]

/** Description and test of the valid values of a numeric option. */
export interface Range {
  readonly description: string
  readonly holds: (n: number) => boolean
}
const integerBetween = (min: number, max: number): Range => ({
  description: `an integer from ${min} to ${max}`,
  holds: (n) => Number.isSafeInteger(n) && n >= min && n <= max
})
const numberBetween = (min: number, max: number): Range => ({
  description: `a number from ${min} to ${max}`,
  holds: (n) => n >= min && n <= max
})

/** Token ids, positions and counts of tokens are int32 in every model. */
const MAX_INT32 = 2 ** 31 - 1
const tokenCount = integerBetween(0, MAX_INT32)
const positiveTokenCount = integerBetween(1, MAX_INT32)
export const share: Range = { description: 'a number above 0 and at most 1', holds: (n) => n > 0 && n <= 1 }

/** Id of a token. */
export const tokenIdRange: Range = integerBetween(0, MAX_INT32)

/** The valid range of every numeric option, for options of a call and of generation_config.json. */
export const optionRanges = {
  maxNewTokens: positiveTokenCount,
  maxLength: positiveTokenCount,
  minNewTokens: tokenCount,
  minLength: tokenCount,
  temperature: numberBetween(0, 1e6), // 0 is greedy
  topK: tokenCount,
  topP: share,
  minP: numberBetween(0, 1),
  typicalP: share,
  epsilonCutoff: { description: 'a number from 0 to below 1', holds: (n) => n >= 0 && n < 1 },
  etaCutoff: { description: 'a number from 0 to below 1', holds: (n) => n >= 0 && n < 1 },
  topH: share,
  guidanceScale: numberBetween(0, 1000),
  maxTime: { description: 'a number of seconds above 0 and at most 1000000000', holds: (n) => n > 0 && n <= 1e9 },
  numBeams: integerBetween(1, 256), // every beam has a KV cache and a row of logits
  numReturnSequences: integerBetween(1, 4096), // every sequence has a KV cache
  lengthPenalty: numberBetween(-100, 100), // an exponent of the length
  repetitionPenalty: { description: 'a number above 0 and at most 1000000', holds: (n) => n > 0 && n <= 1e6 },
  presencePenalty: numberBetween(-2, 2),
  frequencyPenalty: numberBetween(-2, 2),
  encoderRepetitionPenalty: { description: 'a number above 0 and at most 1000000', holds: (n) => n > 0 && n <= 1e6 },
  noRepeatNgramSize: tokenCount,
  encoderNoRepeatNgramSize: tokenCount,
  promptLookupNumTokens: positiveTokenCount,
  maxMatchingNgramSize: positiveTokenCount,
  numAssistantTokens: positiveTokenCount,
  assistantConfidenceThreshold: numberBetween(0, 1),
  flashRelativeThreshold: numberBetween(0, 1),
  flashAbsoluteThreshold: numberBetween(0, 1),
  padTokenId: tokenIdRange,
  forcedBosTokenId: tokenIdRange,
  imageTokenId: tokenIdRange,
  ropeLength: tokenCount,
  prefillChunkSize: positiveTokenCount,
  topLogprobs: integerBetween(0, 100),
  maxPositionEmbeddings: positiveTokenCount
} as const satisfies { readonly [K in NumberOption]: Range }
