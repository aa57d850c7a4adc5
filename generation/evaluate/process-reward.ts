import { tf } from '../../lib/tf.js'
import type { PrepareOptions } from '../../processors/processor.js'
import { itemsOf, type Message, type Messages } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import type { Scorer } from './best-of.js'
import { answerLogits } from './perplexity.js'

export interface ProcessRewardOptions extends Omit<PrepareOptions, 'addGenerationPrompt' | 'continueFinalMessage'> {
  /** System message that the reward model was trained with; none by default. */
  readonly system?: string | undefined
  /** Separator of the steps of an answer; an empty line by default. */
  readonly separator?: string | undefined
}

const plusTurn: Message = { role: 'assistant', content: '+' }

/**
 * The conversation that VisualPRM scores: question and first step in one message, each further step in its own, and after each
 * step a "+" of the assistant, at whose position the model predicts "+" or "-". Source: `generate_steps_with_soft_score`
 * (OpenGVLab/VisualPRM-8B).
 */
const rewardConversation = (messages: Messages, steps: readonly string[], system: string | undefined): Messages => {
  const question = messages.at(-1)
  if (question?.role !== 'user') throw new RangeError('messages: the last message should be a question of the user')
  const first: Message = {
    role: 'user',
    content: [
      { type: 'text', text: '### Question:\n' },
      ...itemsOf(question),
      { type: 'text', text: `\n\n### Solution Process:\n${steps[0]}` }
    ]
  }
  const further = steps.slice(1).flatMap((step): Messages => [{ role: 'user', content: step }, plusTurn])
  const systemMessages: Messages = system === undefined ? [] : [{ role: 'system', content: system }]
  const before = messages.slice(0, -1).filter(({ role }) => system === undefined || role !== 'system')
  return [...systemMessages, ...before, first, plusTurn, ...further]
}

const labelTokenId = ({ processor: { tokenizer } }: InternVLCheckpoint, label: string): number => {
  const [id, ...more] = tokenizer.encode(label, { addSpecialTokens: false })
  if (id === undefined || more.length > 0) throw new RangeError(`rewardModel: its vocabulary has no token "${label}"`)
  return id
}

/** The non-empty steps of an answer; an empty answer is one step. */
const splitSteps = (answer: string, separator = '\n\n'): readonly string[] => {
  const steps = answer
    .split(separator)
    .map((step) => step.trim())
    .filter((step) => step !== '')
  return steps.length > 0 ? steps : ['']
}

/**
 * Probability of "+" against "-" after each step of an answer by a process reward model, between 0 and 1, in one forward. Throws a
 * `RangeError` for a vocabulary without these tokens and for messages that do not end with a question.
 */
export const processRewards = async (
  rewardModel: InternVLCheckpoint,
  messages: Messages,
  answer: string,
  { system, separator, ...options }: ProcessRewardOptions = {}
): Promise<readonly number[]> => {
  const [plus, minus] = [labelTokenId(rewardModel, '+'), labelTokenId(rewardModel, '-')]
  const steps = splitSteps(answer, separator)
  const { logits, tokens } = await answerLogits(rewardModel, rewardConversation(messages, steps, system), options)
  try {
    const indices = tokens.flatMap((token, i) => (token === plus ? [i] : [])).slice(-steps.length)
    if (indices.length < steps.length) throw new RangeError('rewardModel: its chat template omits the token "+" of a message')
    const rows = tf.tidy(() =>
      logits
        .gather(tf.tensor1d(indices, 'int32'))
        .gather(tf.tensor1d([plus, minus], 'int32'), 1)
        .arraySync()
    )
    return (rows as number[][]).map(([plusLogit, minusLogit]) => 1 / (1 + Math.exp(minusLogit! - plusLogit!)))
  } finally {
    logits.dispose()
  }
}

/**
 * A scorer by a process reward model, as in VisualPRM: the mean over the steps of the probability of "+". Throws a `RangeError` for
 * a vocabulary without "+" and "-".
 */
export const processRewardScorer = (rewardModel: InternVLCheckpoint, options: ProcessRewardOptions = {}): Scorer => {
  for (const label of ['+', '-']) labelTokenId(rewardModel, label) // fails before answers are sampled
  return async (messages, answer) => {
    const rewards = await processRewards(rewardModel, messages, answer, options)
    return rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length
  }
}
