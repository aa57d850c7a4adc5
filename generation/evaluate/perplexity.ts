import { orThrow } from '../../lib/error.js'
import { tokenLosses } from '../../lib/nn/losses/cross-entropy.js'
import { numbersOf } from '../../lib/numbers.js'
import { tf } from '../../lib/tf.js'
import type { PrepareOptions } from '../../processors/processor.js'
import type { Messages } from '../../processors/text/messages.js'
import { endOfTurn, type InternVLCheckpoint } from '../checkpoint/load.js'

/** A conversation's answers as the model sees them. The caller owns the logits. */
export interface AnswerLogits {
  /** `[n, V]`: what the model thought before each of the answers' tokens. */
  readonly logits: tf.Tensor2D
  /** `[n]` ids: the answers' own, and the token that ends each. */
  readonly tokens: readonly number[]
}

/** How well a model predicts answers that are given. */
export interface Perplexity {
  /** `exp(loss)`: among so many tokens, as it were, the model hesitates. */
  readonly perplexity: number
  /** Mean of `−log p` over the tokens, in nats. */
  readonly loss: number
  /** Of the answers, ends of turns included. */
  readonly tokens: number
}

/** Positions of the answers' tokens, and of what ends each, in the ids of the whole conversation. */
const answerPlaces = async (
  { processor }: InternVLCheckpoint,
  messages: Messages,
  ids: ArrayLike<number>,
  options: PrepareOptions
): Promise<readonly number[]> => {
  const ends = endOfTurn(processor)
  const places: number[] = []
  for (const [turn, { role }] of messages.entries()) {
    if (role !== 'assistant') continue
    const start = await orThrow(processor.countTokens(messages.slice(0, turn), { ...options, addGenerationPrompt: true }))
    for (let at = start; at < ids.length; at++) {
      places.push(at)
      if (ends.includes(ids[at]!)) break
    }
  }
  if (places.length === 0) throw new RangeError('perplexity: the conversation has no answer')
  return places
}

/**
 * Reads a conversation whole, answers included, for what the model thought before each token of them. Throws a `RangeError` for a
 * conversation without an answer, and an `InternVLError` for what is wrong with its messages or pictures.
 */
export const answerLogits = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  options: PrepareOptions = {}
): Promise<AnswerLogits> => {
  const inputs = await orThrow(internvl.processor.prepare([messages], { ...options, addGenerationPrompt: false }))
  try {
    const ids = inputs.inputIds.dataSync()
    const places = await answerPlaces(internvl, messages, ids, options)
    const first = places[0]! - 1 // what stands before it predicts nothing that counts
    const logits = tf.tidy(() => {
      const kept = internvl.model(inputs, { logitsToKeep: ids.length - first }).logits
      const before = places.map((place) => place - 1 - first)
      return kept.reshape<tf.Tensor2D>([ids.length - first, -1]).gather(tf.tensor1d(before, 'int32'))
    })
    return { logits, tokens: places.map((place) => ids[place]!) }
  } finally {
    tf.dispose([inputs.inputIds, inputs.attentionMask, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
  }
}

/** `−log p` of each token of the answers, in nats. */
export const answerLosses = ({ logits, tokens }: AnswerLogits): Float32Array =>
  numbersOf(() => tokenLosses(logits, tf.tensor1d([...tokens], 'int32'))) as Float32Array

/** The perplexity of losses, each of one token. */
export const perplexityOf = (losses: readonly number[]): Perplexity => {
  const loss = losses.reduce((sum, x) => sum + x, 0) / losses.length
  return { perplexity: Math.exp(loss), loss, tokens: losses.length }
}

/**
 * Perplexity of the assistant's answers in conversations, each token weighing alike: lower is better. `onRow` is told after each.
 *
 * `const { perplexity } = await answerPerplexity(internvl, rows.map(({ messages }) => messages))`
 */
export const answerPerplexity = async (
  internvl: InternVLCheckpoint,
  conversations: readonly Messages[],
  options: PrepareOptions & { readonly onRow?: (done: number) => void } = {}
): Promise<Perplexity> => {
  const { onRow, ...prepare } = options
  if (conversations.length === 0) throw new RangeError('perplexity: there are no conversations')
  const losses: number[] = []
  for (const [i, messages] of conversations.entries()) {
    const answer = await answerLogits(internvl, messages, prepare)
    losses.push(...answerLosses(answer))
    answer.logits.dispose()
    onRow?.(i + 1)
  }
  return perplexityOf(losses)
}
