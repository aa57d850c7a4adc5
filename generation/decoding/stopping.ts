import type { Decode, GenerateOptions, StoppingCondition } from './generation-options.js'

/** Reason for which a row finished: an end token, the maximum length or time, a stop string or stopping condition, or the caller's abort signal. */
export type FinishReason = 'eos' | 'length' | 'stop' | 'aborted'

/**
 * Stops a row whose answer contains one of the texts, also across tokens. Only the end of the answer is decoded: a character
 * has at most four tokens, so a stop string lies within the last `4 · length` tokens.
 * Source: `StopStringCriteria` (transformers 5.24), but a match never begins in the prompt.
 */
export const stopStringCondition = (texts: readonly string[], decode: Decode): StoppingCondition => {
  const window = 4 * Math.max(...texts.map((text) => text.length)) + 8
  return (ids, promptLength) => {
    const end = decode(ids.slice(Math.max(promptLength, ids.length - window)))
    return texts.some((text) => end.includes(text))
  }
}

/** The finish reason of a row after the last of `ids` (prompt and answer), undefined if the row continues. */
export type FinishRule = (ids: readonly number[], promptLength: number) => FinishReason | undefined

/**
 * The finish rule of the options: end tokens, stop strings, stopping conditions, `maxNewTokens`, and `maxTime` from now on; `now` is a
 * clock in milliseconds.
 */
export const finishRule = (o: GenerateOptions, maxNewTokens: number, now: () => number = () => performance.now()): FinishRule => {
  const end = o.maxTime === undefined ? Number.POSITIVE_INFINITY : now() + 1000 * o.maxTime
  const eosTokenIds = new Set(o.eosTokenIds)
  const texts = o.stopStrings?.length ? [stopStringCondition(o.stopStrings, o.decode!)] : []
  const conditions = [...texts, ...(o.stoppingConditions ?? [])]
  return (ids, promptLength) => {
    if (eosTokenIds.has(ids.at(-1)!)) return 'eos'
    if (conditions.some((holds) => holds(ids, promptLength))) return 'stop'
    return ids.length - promptLength >= maxNewTokens || (end < Number.POSITIVE_INFINITY && now() > end) ? 'length' : undefined
  }
}
