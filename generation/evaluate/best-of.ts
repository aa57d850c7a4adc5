import { valueText } from '../../lib/error.js'
import type { Messages } from '../../processors/text/messages.js'
import { type AnswerOptions, answer } from '../answer.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import type { GenerationResult } from '../decoding/prepare-generation.js'
import type { FinishReason } from '../decoding/stopping.js'

/** Score of an answer to a conversation; higher is better. */
export type Scorer = (messages: Messages, answer: string) => number | Promise<number>

export interface BestOfOptions extends Omit<AnswerOptions, 'numReturnSequences' | 'numBeams' | 'returnCache'> {
  /** Number of sampled answers; 8 by default, as in InternVL3's Best-of-8. */
  readonly n?: number
  /** A scorer, or `logprob`: the mean log-probability of an answer's tokens and its end token, from the unprocessed logits. */
  readonly scorer: Scorer | 'logprob'
}

export interface ScoredAnswer {
  readonly text: string
  readonly score: number
  readonly finishReason: FinishReason
}

/** Scores every distinct text once. */
const scoreTexts = async (messages: Messages, texts: readonly string[], scorer: Scorer): Promise<ReadonlyMap<string, number>> => {
  const scores = new Map<string, number>()
  for (const text of new Set(texts)) {
    const score = await scorer(messages, text)
    if (typeof score !== 'number' || Number.isNaN(score))
      throw new RangeError(`scorer: expected a number for ${JSON.stringify(text)}, got ${valueText(score)}`)
    scores.set(text, score)
  }
  return scores
}

const meanLogprobs = ({ logprobs = [] }: GenerationResult): readonly number[] =>
  logprobs.map((row) => row.reduce((sum, x) => sum + x, 0) / row.length)

/**
 * Samples `n` answers to one conversation and scores them: all answers, best first, ties in sampling order. The same `seed`
 * samples the same answers. Throws a `RangeError` for options and for scores that are not numbers.
 *
 * `const [best] = await bestOf(internvl, messages, { n: 8, temperature: 0.7, scorer: processRewardScorer(rewardModel) })`
 */
export const bestOf = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  { n = 8, scorer, ...options }: BestOfOptions
): Promise<readonly ScoredAnswer[]> => {
  if (!Number.isSafeInteger(n) || n < 1) throw new RangeError(`n: expected an integer, 1 or more, got ${valueText(n)}`)
  const sampling = { doSample: true, ...options, numBeams: 1, numReturnSequences: n, outputLogprobs: scorer === 'logprob' }
  const { texts, result } = await answer(internvl, [messages], sampling)
  const scores = scorer === 'logprob' ? undefined : await scoreTexts(messages, texts, scorer)
  const logprobScores = meanLogprobs(result)
  return texts
    .map((text, i) => ({ text, score: scores?.get(text) ?? logprobScores[i]!, finishReason: result.finishReasons[i]! }))
    .sort((a, b) => b.score - a.score)
}
