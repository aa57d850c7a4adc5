import { tidyDataSync } from '../../lib/data-sync.js'
import { orThrow } from '../../lib/error.js'
import { tokenLosses } from '../../lib/nn/losses/cross-entropy.js'
import { tf } from '../../lib/tf.js'
import type { PrepareOptions } from '../../processors/processor.js'
import type { Messages } from '../../processors/text/messages.js'
import { endOfTurn, type InternVLCheckpoint } from '../checkpoint/load.js'

/** Logits and target tokens of the answers of a conversation. The caller owns the logits. */
export interface AnswerLogits {
  /** `[n, V]`: logits that predict each token of the answers. */
  readonly logits: tf.Tensor2D
  /** `[n]` ids of the answers' tokens, the end token of each answer included. */
  readonly tokens: readonly number[]
}

/** Perplexity of a model on given answers. */
export interface Perplexity {
  /** `exp(loss)`: the effective number of tokens that the model chooses among. */
  readonly perplexity: number
  /** Mean negative log-probability of the tokens, in nats. */
  readonly loss: number
  /** Number of tokens of the answers, end tokens included. */
  readonly tokens: number
}

/** Indices of the answers' tokens and of the end token of each answer in the ids of the whole conversation. */
const answerPositions = async (
  { processor }: InternVLCheckpoint,
  messages: Messages,
  ids: ArrayLike<number>,
  options: PrepareOptions
): Promise<readonly number[]> => {
  const ends = endOfTurn(processor)
  const indices: number[] = []
  for (const [turn, { role }] of messages.entries()) {
    if (role !== 'assistant') continue
    const start = await orThrow(processor.countTokens(messages.slice(0, turn), { ...options, addGenerationPrompt: true }))
    for (let at = start; at < ids.length; at++) {
      indices.push(at)
      if (ends.includes(ids[at]!)) break
    }
  }
  if (indices.length === 0) throw new RangeError('perplexity: the conversation has no answer; add a message of the assistant')
  return indices
}

/**
 * Forward of a whole conversation: the logits before each token of its answers. Throws a `RangeError` for a conversation without
 * an answer, and an `InternVLError` for messages or images that cannot be read.
 */
export const answerLogits = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  options: PrepareOptions = {}
): Promise<AnswerLogits> => {
  const inputs = await orThrow(internvl.processor.prepare([messages], { ...options, addGenerationPrompt: false }))
  try {
    const ids = inputs.promptIds[0]!
    const indices = await answerPositions(internvl, messages, ids, options)
    const first = indices[0]! - 1 // earlier logits predict tokens of the prompt
    const logits = tf.tidy(() => {
      const logits = internvl.model(inputs, { logitsToKeep: ids.length - first }).logits
      const before = indices.map((index) => index - 1 - first)
      return logits.reshape<tf.Tensor2D>([ids.length - first, -1]).gather(tf.tensor1d(before, 'int32'))
    })
    return { logits, tokens: indices.map((index) => ids[index]!) }
  } finally {
    inputs.dispose()
  }
}

/** Negative log-probability of each token of the answers, in nats. */
export const answerLosses = ({ logits, tokens }: AnswerLogits): Float32Array =>
  tidyDataSync(() => tokenLosses(logits, tf.tensor1d([...tokens], 'int32'))) as Float32Array

/** The perplexity of token losses. */
export const perplexityOf = (losses: readonly number[]): Perplexity => {
  const loss = losses.reduce((sum, x) => sum + x, 0) / losses.length
  return { perplexity: Math.exp(loss), loss, tokens: losses.length }
}

/**
 * Perplexity of the assistant's answers in conversations, the mean over all tokens; lower is better. `onRow` is called after each
 * conversation.
 *
 * `const { perplexity } = await answerPerplexity(internvl, rows.map(({ messages }) => messages))`
 */
export const answerPerplexity = async (
  internvl: InternVLCheckpoint,
  conversations: readonly Messages[],
  options: PrepareOptions & { readonly onRow?: (done: number) => void } = {}
): Promise<Perplexity> => {
  const { onRow, ...prepare } = options
  if (conversations.length === 0) throw new RangeError('perplexity: the list of conversations is empty')
  const losses: number[] = []
  for (const [i, messages] of conversations.entries()) {
    const answer = await answerLogits(internvl, messages, prepare)
    losses.push(...answerLosses(answer))
    answer.logits.dispose()
    onRow?.(i + 1)
  }
  return perplexityOf(losses)
}
