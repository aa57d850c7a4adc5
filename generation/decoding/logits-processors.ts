import { type GenerateOptions, isSampling } from './generation-options.js'
import { minPFilter, temperatureScale, topKFilter, topPFilter, typicalFilter } from './logits-warpers.js'
import type { LogitsProcessor } from './step.js'

/** One processor after the other. */
export const composed =
  (processors: readonly LogitsProcessor[]): LogitsProcessor =>
  (ids, logits, promptLength) =>
    processors.reduce((l, process) => process(ids, l, promptLength), logits)

/** A copy in which the given tokens have the given logit. */
const withValue = (logits: Float32Array, tokens: Iterable<number>, value: number): Float32Array => {
  const out = logits.slice()
  for (const token of tokens) if (token < out.length) out[token] = value
  return out
}

const never = Number.NEGATIVE_INFINITY

/** Only these tokens, all alike. */
const only = (logits: Float32Array, tokens: readonly number[]): Float32Array =>
  withValue(new Float32Array(logits.length).fill(never), tokens, 0)

/**
 * Divides positive and multiplies negative logits of all tokens in prompt and answer, image tokens among them.
 * Source: Keskar et al. 2019; `RepetitionPenaltyLogitsProcessor` (transformers 5.23), which leaves padding out as well.
 */
export const repetitionPenalty =
  (penalty: number): LogitsProcessor =>
  (ids, logits) => {
    const out = logits.slice()
    for (const id of new Set(ids)) if (id < out.length) out[id] = logits[id]! < 0 ? logits[id]! * penalty : logits[id]! / penalty
    return out
  }

const matchesAt = (ids: readonly number[], at: number, pattern: readonly number[]): boolean =>
  at >= 0 && pattern.every((id, i) => ids[at + i] === id)

/** Forbids what would complete an n-gram of prompt and answer again. Source: `NoRepeatNGramLogitsProcessor` (transformers 5.23). */
export const noRepeatNgram =
  (size: number): LogitsProcessor =>
  (ids, logits) => {
    if (ids.length < size) return logits
    const begun = ids.slice(ids.length - size + 1)
    const banned = ids.filter((_, i) => i >= size - 1 && matchesAt(ids, i - size + 1, begun))
    return withValue(logits, banned, never)
  }

/** Adds each bias to the last token of its sequence where the tokens before it stand at the end. Source: `SequenceBiasLogitsProcessor`. */
export const sequenceBias =
  (biases: ReadonlyArray<readonly [ids: readonly number[], bias: number]>): LogitsProcessor =>
  (ids, logits) => {
    const out = logits.slice()
    for (const [sequence, bias] of biases) {
      const [before, last] = [sequence.slice(0, -1), sequence.at(-1)!]
      if (last < out.length && matchesAt(ids, ids.length - before.length, before)) out[last]! += bias
    }
    return out
  }

/** Forbids sequences of tokens; an end token alone cannot be one. Source: `NoBadWordsLogitsProcessor`. */
export const badWords = (words: ReadonlyArray<readonly number[]>, ends: readonly number[] = []): LogitsProcessor =>
  sequenceBias(words.filter(([id, ...more]) => more.length > 0 || !ends.includes(id!)).map((word) => [word, never]))

/** Forbids tokens: always, or while `when` holds of prompt and answer. */
export const suppress =
  (tokens: readonly number[], when: (ids: readonly number[], promptLength: number) => boolean = () => true): LogitsProcessor =>
  (ids, logits, promptLength) =>
    when(ids, promptLength) ? withValue(logits, tokens, never) : logits

/** Leaves only `tokens` while `when` holds. Source: `ForcedBOSTokenLogitsProcessor`, `ForcedEOSTokenLogitsProcessor`. */
export const force =
  (tokens: readonly number[], when: (ids: readonly number[], promptLength: number) => boolean): LogitsProcessor =>
  (ids, logits, promptLength) =>
    when(ids, promptLength) ? only(logits, tokens) : logits

/** The answer begins with these tokens. */
export const forcedStart =
  (tokens: readonly number[]): LogitsProcessor =>
  (ids, logits, promptLength) => {
    const token = tokens[ids.length - promptLength]
    return token === undefined ? logits : only(logits, [token])
  }

const largest = (2 - 2 ** -23) * 2 ** 127

/** NaN to 0, infinities to the greatest finite numbers. Source: `InfNanRemoveLogitsProcessor`. */
export const removeInvalid: LogitsProcessor = (_ids, logits) =>
  logits.map((x) => (Number.isNaN(x) ? 0 : Math.min(largest, Math.max(-largest, x))))

/** `log softmax`, `[V] → [V]`. */
export const logSoftmax = (logits: Float32Array): Float32Array => {
  const most = logits.reduce((a, b) => Math.max(a, b), never)
  const log = Math.log(logits.reduce((sum, x) => sum + Math.exp(x - most), 0))
  return logits.map((x) => x - most - log)
}

/** What is between the end of a sequence and an option that counts all tokens: padding is counted, as in Transformers. */
const made = (ids: readonly number[], promptLength: number): number => ids.length - promptLength

/**
 * The processors that options ask for, in Transformers' order; `padded` is the length of the padded prompts, `allowed` the most
 * tokens made. Source: `_get_logits_processor` (transformers 5.23).
 */
export const logitsProcessors = (o: GenerateOptions, padded: number, allowed: number): readonly LogitsProcessor[] => {
  const list: LogitsProcessor[] = []
  const ends = o.eosTokenIds ?? []
  const least = o.minNewTokens ?? (o.minLength ?? 0) - padded
  const tooShort = (ids: readonly number[], promptLength: number) => made(ids, promptLength) < least
  if (o.sequenceBias?.length) list.push(sequenceBias(o.sequenceBias))
  if ((o.repetitionPenalty ?? 1) !== 1) list.push(repetitionPenalty(o.repetitionPenalty!))
  if (o.noRepeatNgramSize) list.push(noRepeatNgram(o.noRepeatNgramSize))
  if (o.badWords?.length) list.push(badWords(o.badWords, ends))
  if (ends.length > 0 && least > 0) list.push(suppress(ends, tooShort))
  if (o.forcedBosTokenId !== undefined) list.push(force([o.forcedBosTokenId], (ids) => ids.length === 1))
  if (o.forcedTokens?.length) list.push(forcedStart(o.forcedTokens))
  if (o.forcedEosTokenIds?.length) list.push(force(o.forcedEosTokenIds, (ids, prompt) => made(ids, prompt) === allowed - 1))
  if (o.removeInvalidValues) list.push(removeInvalid)
  if (o.suppressTokens?.length) list.push(suppress(o.suppressTokens))
  if (o.beginSuppressTokens?.length) list.push(suppress(o.beginSuppressTokens, (ids, prompt) => ids.length === prompt))
  list.push(...(o.logitsProcessors ?? []), ...warpers(o))
  if (o.renormalizeLogits) list.push((_ids, logits) => logSoftmax(logits))
  return list
}

/** Only where tokens are drawn; beams keep one token more than there are end tokens. */
const warpers = (o: GenerateOptions): readonly LogitsProcessor[] => {
  if (!isSampling(o)) return []
  const { temperature = 1, topK = 50, topP = 1, minP = 0, typicalP = 1 } = o
  const keep = (o.numBeams ?? 1) > 1 ? (o.eosTokenIds?.length ?? 1) + 1 : 1
  return [
    ...(temperature === 1 ? [] : [temperatureScale(temperature)]),
    ...(topK === 0 ? [] : [topKFilter(topK, keep)]),
    ...(topP === 1 ? [] : [topPFilter(topP, keep)]),
    ...(minP === 0 ? [] : [minPFilter(minP, keep)]),
    ...(typicalP === 1 ? [] : [typicalFilter(typicalP, keep)])
  ]
}
