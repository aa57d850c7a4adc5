import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import type { AnswerPart, ExplainedInput } from './explained-input.js'

/**
 * Scores `[B, parts]` of B variants of the image: the sum of the log-probabilities of each part's tokens, given prompt and answer before
 * them. `features` are the image features of all tiles of each variant, `[B·T, N, D]`.
 */
export const partScores = (
  model: InternVL,
  { ids, promptLength }: ExplainedInput,
  parts: readonly AnswerPart[],
  features: tf.Tensor3D,
  variants: number
): tf.Tensor2D => {
  const L = ids.length - 1 // the last token predicts nothing that is asked for
  const inputIds = tf.tile(tf.tensor2d(ids.slice(0, L), [1, L], 'int32'), [variants, 1])
  const answer = ids.slice(promptLength)
  const { logits } = model({ inputIds, imageFeatures: features }, { logitsToKeep: answer.length })
  const V = logits.shape[2]
  const logprobs = tf.logSoftmax(logits)
  const chosen = logprobs.mul(tf.oneHot(tf.tensor1d([...answer], 'int32'), V)).sum<tf.Tensor2D>(2) // [B, answer]
  const membership = parts.map(({ tokens }) => answer.map((_, i) => Number(tokens.includes(i))))
  return tf.matMul(chosen, tf.tensor2d(membership), false, true)
}
