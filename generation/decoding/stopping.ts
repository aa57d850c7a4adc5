import type { GenerateOptions } from './generation-options.js'
import type { Decode, StoppingCondition } from './step.js'

/** Why a row ended: an end token, the greatest length, a stop string or condition, or the caller's signal. */
export type FinishReason = 'eos' | 'length' | 'stop' | 'aborted'

/**
 * Ends a row whose answer contains one of the texts, across tokens too. Only the end of the answer is decoded: a character
 * is at most four tokens, so a text is in the last `4 · length` of them that have any text.
 * Source: `StopStringCriteria` (transformers 5.23), but a match never begins in the prompt.
 */
export const stopStringCondition = (texts: readonly string[], decode: Decode): StoppingCondition => {
  const window = 4 * Math.max(...texts.map((text) => text.length)) + 8
  return (ids, promptLength) => {
    const end = decode(ids.slice(Math.max(promptLength, ids.length - window)))
    return texts.some((text) => end.includes(text))
  }
}

/** Why a row ends after the last of `ids`, if it does; at most `allowed` tokens are made. */
export type Stop = (ids: readonly number[], promptLength: number) => FinishReason | undefined

/** All that the options say of ending. */
export const stopRule = (o: GenerateOptions, allowed: number): Stop => {
  const ends = new Set(o.eosTokenIds)
  const texts = o.stopStrings?.length ? [stopStringCondition(o.stopStrings, o.decode!)] : []
  const conditions = [...texts, ...(o.stoppingConditions ?? [])]
  return (ids, promptLength) => {
    if (ends.has(ids.at(-1)!)) return 'eos'
    if (conditions.some((holds) => holds(ids, promptLength))) return 'stop'
    return ids.length - promptLength >= allowed ? 'length' : undefined
  }
}
