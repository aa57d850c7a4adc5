import { type GenerateOptions, isSampling, type LogitsProcessor } from './generation-options.js'
import {
  epsilonFilter,
  etaFilter,
  minPFilter,
  temperatureScale,
  topHFilter,
  topKFilter,
  topPFilter,
  typicalFilter
} from './logits-warpers.js'
import { greenListWatermark } from './watermark/green-list.js'
import { synthIdWatermark } from './watermark/synth-id.js'
import { isSynthId, type WatermarkingConfig } from './watermark/watermarking-config.js'

/** Applies the processors in order. */
export const compose =
  (processors: readonly LogitsProcessor[]): LogitsProcessor =>
  (ids, logits, promptLength) =>
    processors.reduce((l, process) => process(ids, l, promptLength), logits)

/** A copy of the logits with `value` at the given token ids. */
const withValue = (logits: Float32Array, tokens: Iterable<number>, value: number): Float32Array => {
  const out = logits.slice()
  for (const token of tokens) if (token < out.length) out[token] = value
  return out
}

const minusInfinity = Number.NEGATIVE_INFINITY

/** Logit 0 for these tokens, minus infinity for all others. */
const onlyTokens = (logits: Float32Array, tokens: readonly number[]): Float32Array =>
  withValue(new Float32Array(logits.length).fill(minusInfinity), tokens, 0)

/**
 * Divides positive and multiplies negative logits of all tokens of prompt and answer, image tokens included.
 * Source: Keskar et al. 2019; `RepetitionPenaltyLogitsProcessor` (transformers 5.24), which also ignores padding.
 */
export const repetitionPenalty =
  (penalty: number): LogitsProcessor =>
  (ids, logits) => {
    const out = logits.slice()
    for (const id of new Set(ids)) if (id < out.length) out[id] = logits[id]! < 0 ? logits[id]! * penalty : logits[id]! / penalty
    return out
  }

/**
 * Multiplies positive and divides negative logits of the prompt's tokens; those of padding, `padding`, too where prompts are padded. Source:
 * `EncoderRepetitionPenaltyLogitsProcessor` (transformers 5.24), which takes the prompt as the ids of an encoder.
 */
const promptRepetition =
  (penalty: number, paddedLength: number, padding: number | undefined): LogitsProcessor =>
  (ids, logits, promptLength) => {
    const pads = promptLength < paddedLength && padding !== undefined ? [padding] : []
    return repetitionPenalty(1 / penalty)([...pads, ...ids.slice(0, promptLength)], logits, promptLength)
  }

/**
 * Subtracts `presence`, and `frequency` for each occurrence, from the logits of the answer's tokens. The prompt does not count.
 * Source: OpenAI's API reference, `presence_penalty` and `frequency_penalty`.
 */
export const countPenalty =
  (presence: number, frequency: number): LogitsProcessor =>
  (ids, logits, promptLength) => {
    const out = logits.slice()
    const answer = ids.slice(promptLength)
    for (const id of new Set(answer)) if (id < out.length) out[id]! -= presence
    for (const id of answer) if (id < out.length) out[id]! -= frequency
    return out
  }

const matchesAt = (ids: readonly number[], at: number, pattern: readonly number[]): boolean =>
  at >= 0 && pattern.every((id, i) => ids[at + i] === id)

/** Forbids tokens that would repeat an n-gram of prompt and answer. Source: `NoRepeatNGramLogitsProcessor` (transformers 5.24). */
export const noRepeatNgram =
  (size: number): LogitsProcessor =>
  (ids, logits) => {
    if (ids.length < size) return logits
    const prefix = ids.slice(ids.length - size + 1)
    const banned = ids.filter((_, i) => i >= size - 1 && matchesAt(ids, i - size + 1, prefix))
    return withValue(logits, banned, minusInfinity)
  }

/** Forbids tokens that would repeat an n-gram of the prompt. Source: `EncoderNoRepeatNGramLogitsProcessor` (transformers 5.24). */
const noPromptNgram =
  (size: number): LogitsProcessor =>
  (ids, logits, promptLength) => {
    if (ids.length + 1 < size) return logits
    const prefix = ids.slice(ids.length - size + 1)
    const banned = ids.slice(0, promptLength).filter((_, i) => i >= size - 1 && matchesAt(ids, i - size + 1, prefix))
    return withValue(logits, banned, minusInfinity)
  }

/** Throws a `RangeError` for a token outside the vocabulary. */
const checkTokens = (option: string, tokens: readonly number[], vocabSize: number): void => {
  const unknown = tokens.find((id) => id >= vocabSize)
  if (unknown !== undefined)
    throw new RangeError(`${option}: ${unknown} is no token; the vocabulary has the tokens 0 to ${vocabSize - 1}`)
}

/**
 * Adds each bias to the last token of its sequence if `ids` end with the tokens before it; of equal sequences the last counts. Throws a
 * `RangeError` for a token outside the vocabulary. Source: `SequenceBiasLogitsProcessor` (transformers 5.24).
 */
export const sequenceBias = (
  biases: ReadonlyArray<readonly [ids: readonly number[], bias: number]>,
  option = 'sequenceBias'
): LogitsProcessor => {
  const bySequence = new Map(biases.map(([sequence, bias]) => [sequence.join(), { sequence, bias }]))
  const tokens = biases.flatMap(([sequence]) => sequence)
  return (ids, logits) => {
    checkTokens(option, tokens, logits.length)
    const out = logits.slice()
    for (const { sequence, bias } of bySequence.values()) {
      const [before, last] = [sequence.slice(0, -1), sequence.at(-1)!]
      if (matchesAt(ids, ids.length - before.length, before)) out[last]! += bias
    }
    return out
  }
}

/** Forbids token sequences; a single end token is never forbidden. Source: `NoBadWordsLogitsProcessor`. */
export const badWords = (words: ReadonlyArray<readonly number[]>, eosTokenIds: readonly number[] = []): LogitsProcessor =>
  sequenceBias(
    words.filter(([id, ...more]) => more.length > 0 || !eosTokenIds.includes(id!)).map((word) => [word, minusInfinity]),
    'badWords'
  )

/** Forbids tokens always, or while `when` holds. */
const suppress =
  (tokens: readonly number[], when: (ids: readonly number[], promptLength: number) => boolean = () => true): LogitsProcessor =>
  (ids, logits, promptLength) =>
    when(ids, promptLength) ? withValue(logits, tokens, minusInfinity) : logits

/** Forces one of `tokens` while `when` holds. Source: `ForcedBOSTokenLogitsProcessor`, `ForcedEOSTokenLogitsProcessor`. */
export const force =
  (tokens: readonly number[], when: (ids: readonly number[], promptLength: number) => boolean): LogitsProcessor =>
  (ids, logits, promptLength) => {
    if (!when(ids, promptLength)) return logits
    checkTokens('forced tokens', tokens, logits.length)
    return onlyTokens(logits, tokens)
  }

/** Forces the answer to begin with these tokens. */
const forcedStart =
  (tokens: readonly number[]): LogitsProcessor =>
  (ids, logits, promptLength) => {
    const token = tokens[ids.length - promptLength]
    return token === undefined ? logits : onlyTokens(logits, [token])
  }

const largest = (2 - 2 ** -23) * 2 ** 127

/** Replaces NaN by 0 and infinities by the largest finite float32. Source: `InfNanRemoveLogitsProcessor`. */
const removeInvalid: LogitsProcessor = (_ids, logits) =>
  logits.map((x) => (Number.isNaN(x) ? 0 : Math.min(largest, Math.max(-largest, x))))

/** `log softmax`, `[V] → [V]`. */
export const logSoftmax = (logits: Float32Array): Float32Array => {
  const max = logits.reduce((a, b) => Math.max(a, b), minusInfinity)
  const log = Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0))
  return logits.map((x) => x - max - log)
}

/**
 * Raises the logits of end tokens exponentially after `start` new tokens: `x + |x| · (factor ** n − 1)` for the n-th token beyond it.
 * Source: `ExponentialDecayLengthPenalty` (transformers 5.24).
 */
const exponentialDecay =
  ([start, factor]: readonly [start: number, factor: number], eosTokenIds: readonly number[]): LogitsProcessor =>
  (ids, logits, promptLength) => {
    const beyond = newTokenCount(ids, promptLength) - start
    if (beyond <= 0) return logits
    const out = logits.slice()
    for (const id of eosTokenIds)
      if (Number.isFinite(out[id])) out[id] = logits[id]! + Math.abs(logits[id]!) * (factor ** beyond - 1)
    return out
  }

/** Number of new tokens in `ids`. */
const newTokenCount = (ids: readonly number[], promptLength: number): number => ids.length - promptLength

/**
 * The logits processors of the options, in Transformers' order. `paddedLength` is the length of the padded prompts, which
 * `minLength` counts, as Transformers does. Source: `_get_logits_processor` (transformers 5.24).
 */
export const logitsProcessors = (o: GenerateOptions, paddedLength: number, maxNewTokens: number): readonly LogitsProcessor[] => {
  const list: LogitsProcessor[] = []
  const eosTokenIds = o.eosTokenIds ?? []
  const minNewTokens = o.minNewTokens ?? (o.minLength ?? 0) - paddedLength
  const isTooShort = (ids: readonly number[], promptLength: number) => newTokenCount(ids, promptLength) < minNewTokens
  if (o.sequenceBias?.length) list.push(sequenceBias(o.sequenceBias))
  if ((o.encoderRepetitionPenalty ?? 1) !== 1)
    list.push(promptRepetition(o.encoderRepetitionPenalty!, paddedLength, o.padTokenId))
  if ((o.repetitionPenalty ?? 1) !== 1) list.push(repetitionPenalty(o.repetitionPenalty!))
  if (o.presencePenalty || o.frequencyPenalty) list.push(countPenalty(o.presencePenalty ?? 0, o.frequencyPenalty ?? 0))
  if (o.noRepeatNgramSize) list.push(noRepeatNgram(o.noRepeatNgramSize))
  if (o.encoderNoRepeatNgramSize) list.push(noPromptNgram(o.encoderNoRepeatNgramSize))
  const words = [...(o.badWords ?? []), ...(o.badWordsIds ?? [])]
  if (words.length > 0) list.push(badWords(words, eosTokenIds))
  if (eosTokenIds.length > 0 && minNewTokens > 0) list.push(suppress(eosTokenIds, isTooShort))
  if (o.forcedBosTokenId !== undefined) list.push(force([o.forcedBosTokenId], (ids) => ids.length === 1))
  if (o.forcedTokens?.length) list.push(forcedStart(o.forcedTokens))
  if (o.forcedEosTokenIds?.length)
    list.push(force(o.forcedEosTokenIds, (ids, prompt) => newTokenCount(ids, prompt) === maxNewTokens - 1))
  if (o.removeInvalidValues) list.push(removeInvalid)
  if (o.exponentialDecayLengthPenalty && eosTokenIds.length > 0)
    list.push(exponentialDecay(o.exponentialDecayLengthPenalty, eosTokenIds))
  if (o.suppressTokens?.length) list.push(suppress(o.suppressTokens))
  const first = o.forcedBosTokenId !== undefined && paddedLength === 1 ? 1 : 0 // after the forced token, as in Transformers
  if (o.beginSuppressTokens?.length)
    list.push(suppress(o.beginSuppressTokens, (ids, prompt) => newTokenCount(ids, prompt) === first))
  list.push(...(o.logitsProcessors ?? []), ...warpers(o))
  if (o.watermarkingConfig) list.push(watermark(o.watermarkingConfig))
  if (o.renormalizeLogits) list.push((_ids, logits) => logSoftmax(logits))
  return list
}

/** The processor of a watermark. */
export const watermark = (c: WatermarkingConfig): LogitsProcessor => (isSynthId(c) ? synthIdWatermark(c) : greenListWatermark(c))

/** Filters of the distribution, with sampling only; beam search keeps one token more than there are end tokens. */
const warpers = (o: GenerateOptions): readonly LogitsProcessor[] => {
  if (!isSampling(o)) return []
  const { temperature = 1, topH = 1, topK = 50, topP = 1, minP = 0, typicalP = 1, epsilonCutoff = 0, etaCutoff = 0 } = o
  const keep = (o.numBeams ?? 1) > 1 ? (o.eosTokenIds?.length ?? 1) + 1 : 1
  return [
    ...(temperature === 1 ? [] : [temperatureScale(temperature)]),
    ...(topH === 1 ? [] : [topHFilter(topH)]),
    ...(topK === 0 ? [] : [topKFilter(topK, keep)]),
    ...(topP === 1 ? [] : [topPFilter(topP, keep)]),
    ...(minP === 0 ? [] : [minPFilter(minP, keep)]),
    ...(typicalP === 1 ? [] : [typicalFilter(typicalP, keep)]),
    ...(epsilonCutoff === 0 ? [] : [epsilonFilter(epsilonCutoff, keep)]),
    ...(etaCutoff === 0 ? [] : [etaFilter(etaCutoff, keep)])
  ]
}
