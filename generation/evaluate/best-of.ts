import type { Messages } from '../../processors/text/messages.js'
import { type AnswerOptions, answer } from '../answer.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import type { GenerationResult } from '../decoding/generation-plan.js'
import type { FinishReason } from '../decoding/stopping.js'

/** How good an answer to a conversation is: the more the better. */
export type Scorer = (messages: Messages, answer: string) => number | Promise<number>

export interface BestOfOptions extends Omit<AnswerOptions, 'numReturnSequences' | 'numBeams' | 'returnCache'> {
  /** Answers to draw; 8 unless given, as in InternVL3's Best-of-8. */
  readonly n?: number
  /** `logprob` is the mean log-probability of an answer's tokens, its end included, by the model's own logits. */
  readonly scorer: Scorer | 'logprob'
}

export interface ScoredAnswer {
  readonly text: string
  readonly score: number
  readonly finishReason: FinishReason
}

/** Each different text is scored once. */
const scoresOf = async (messages: Messages, texts: readonly string[], scorer: Scorer): Promise<ReadonlyMap<string, number>> => {
  const scores = new Map<string, number>()
  for (const text of new Set(texts)) {
    const score = await scorer(messages, text)
    if (typeof score !== 'number' || Number.isNaN(score))
      throw new RangeError(`scorer: it should give a number; for ${JSON.stringify(text)} it gave ${score}`)
    scores.set(text, score)
  }
  return scores
}

const means = ({ logprobs = [] }: GenerationResult): readonly number[] =>
  logprobs.map((row) => row.reduce((sum, x) => sum + x, 0) / row.length)

/**
 * Draws `n` answers to one conversation and scores them: all of them, the best first, as they were drawn where scores are equal.
 * The same `seed` draws the same answers. Throws a `RangeError` for options and for scores that are no numbers.
 *
 * `const [best] = await bestOf(internvl, messages, { n: 8, temperature: 0.7, scorer: processRewardScorer(rewardModel) })`
 */
export const bestOf = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  { n = 8, scorer, ...options }: BestOfOptions
): Promise<readonly ScoredAnswer[]> => {
  if (!Number.isSafeInteger(n) || n < 1) throw new RangeError(`n: it should be an integer, 1 or more; it is ${n}`)
  const drawn = { doSample: true, ...options, numBeams: 1, numReturnSequences: n, outputLogprobs: scorer === 'logprob' }
  const { texts, result } = await answer(internvl, [messages], drawn)
  const scores = scorer === 'logprob' ? undefined : await scoresOf(messages, texts, scorer)
  const own = means(result)
  return texts
    .map((text, i) => ({ text, score: scores?.get(text) ?? own[i]!, finishReason: result.finishReasons[i]! }))
    .sort((a, b) => b.score - a.score)
}
