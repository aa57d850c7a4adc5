import type { PrepareOptions } from '../../processors/processor.js'
import type { Messages } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { type Choices, expectedLetter } from './metrics/multiple-choice.js'
import { answerLogits, answerLosses } from './perplexity.js'

/** An answer and the log-probability of its tokens, the end token included, in nats. */
export interface ScoredChoice {
  readonly text: string
  readonly logProbability: number
}

/**
 * Log-probability of each text as the answer to a conversation, most probable first. Texts of different lengths are compared as whole answers:
 * the end token counts. Answers of the prompt itself add the same number to all, and change no order.
 */
export const choiceLikelihoods = async (
  internvl: InternVLCheckpoint,
  prompt: Messages,
  texts: readonly string[],
  options: PrepareOptions = {}
): Promise<readonly ScoredChoice[]> => {
  const scored: ScoredChoice[] = []
  for (const text of texts) {
    const messages: Messages = [...prompt, { role: 'assistant', content: text }]
    const answer = await answerLogits(internvl, messages, options)
    const losses = answerLosses(answer)
    answer.logits.dispose()
    scored.push({ text, logProbability: -losses.reduce((sum, loss) => sum + loss, 0) })
  }
  return scored.sort((a, b) => b.logProbability - a.logProbability)
}

/** The answers that a model chooses among: the letters where a letter is expected, else the texts of the options. */
export const choiceTexts = (choices: Choices, expected: string): readonly string[] => {
  const letter = expectedLetter(expected, choices)
  const isText = letter !== undefined && choices[letter]!.trim() === expected.trim()
  return isText ? Object.values(choices) : Object.keys(choices)
}
