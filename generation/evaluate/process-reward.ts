import { tf } from '../../lib/tf.js'
import type { PrepareOptions } from '../../processors/processor.js'
import { itemsOf, type Message, type Messages } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import type { Scorer } from './best-of.js'
import { answerLogits } from './perplexity.js'

export interface ProcessRewardOptions extends Omit<PrepareOptions, 'addGenerationPrompt' | 'continueFinalMessage'> {
  /** What the reward model was trained to be told first; nothing unless given. */
  readonly system?: string | undefined
  /** Stands between the steps of an answer; an empty line unless given. */
  readonly separator?: string | undefined
}

const plus: Message = { role: 'assistant', content: '+' }

/**
 * A conversation in the form of VisualPRM: question and first step in one turn, each further step in its own, and a "+" after each,
 * in whose place the model judges. Source: `generate_steps_with_soft_score` (OpenGVLab/VisualPRM-8B).
 */
const judged = (messages: Messages, steps: readonly string[], system: string | undefined): Messages => {
  const question = messages.at(-1)
  if (question?.role !== 'user') throw new RangeError('messages: the last one should be of the user, whose question is answered')
  const first: Message = {
    role: 'user',
    content: [
      { type: 'text', text: '### Question:\n' },
      ...itemsOf(question),
      { type: 'text', text: `\n\n### Solution Process:\n${steps[0]}` }
    ]
  }
  const further = steps.slice(1).flatMap((step): Messages => [{ role: 'user', content: step }, plus])
  const told: Messages = system === undefined ? [] : [{ role: 'system', content: system }]
  const before = messages.slice(0, -1).filter(({ role }) => system === undefined || role !== 'system')
  return [...told, ...before, first, plus, ...further]
}

const labelOf = ({ processor: { tokenizer } }: InternVLCheckpoint, label: string): number => {
  const [id, ...more] = tokenizer.encode(label, { addSpecialTokens: false })
  if (id === undefined || more.length > 0) throw new RangeError(`rewardModel: its vocabulary has no token "${label}"`)
  return id
}

/** The steps of an answer, without empty ones; an answer of nothing else is one step. */
const stepsOf = (answer: string, separator = '\n\n'): readonly string[] => {
  const said = answer
    .split(separator)
    .map((step) => step.trim())
    .filter((step) => step !== '')
  return said.length > 0 ? said : ['']
}

/**
 * How probable a process reward model holds "+" rather than "-" after each step of an answer, between 0 and 1, in one forward.
 * Throws a `RangeError` for a vocabulary without these tokens and for messages that do not end with a question.
 */
export const processRewards = async (
  rewardModel: InternVLCheckpoint,
  messages: Messages,
  answer: string,
  { system, separator, ...options }: ProcessRewardOptions = {}
): Promise<readonly number[]> => {
  const [good, bad] = [labelOf(rewardModel, '+'), labelOf(rewardModel, '-')]
  const steps = stepsOf(answer, separator)
  const { logits, tokens } = await answerLogits(rewardModel, judged(messages, steps, system), options)
  try {
    const places = tokens.flatMap((token, i) => (token === good ? [i] : [])).slice(-steps.length)
    if (places.length < steps.length) throw new RangeError('rewardModel: its chat template hides the token "+" of a turn')
    const rows = tf.tidy(() =>
      logits
        .gather(tf.tensor1d(places, 'int32'))
        .gather(tf.tensor1d([good, bad], 'int32'), 1)
        .arraySync()
    )
    return (rows as number[][]).map(([yes, no]) => 1 / (1 + Math.exp(no! - yes!)))
  } finally {
    logits.dispose()
  }
}

/**
 * Scores answers by a process reward model, as VisualPRM does: the mean over their steps of the probability of "+". Throws a `RangeError`
 * for a vocabulary without "+" and "-".
 */
export const processRewardScorer = (rewardModel: InternVLCheckpoint, options: ProcessRewardOptions = {}): Scorer => {
  for (const label of ['+', '-']) labelOf(rewardModel, label) // before answers are drawn
  return async (messages, answer) => {
    const rewards = await processRewards(rewardModel, messages, answer, options)
    return rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length
  }
}
