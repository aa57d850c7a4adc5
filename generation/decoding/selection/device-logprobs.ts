import { tf } from '../../../lib/tf.js'
import type { GenerateOptions } from '../generation-options.js'
import type { TopLogprob } from '../prepare-generation.js'

/**
 * Log-probabilities of the selected tokens `[N]` (float32), and the `k` most probable tokens and their log-probabilities, from unprocessed logits
 * `[N, V]`: `[N, 1 + 2 k]`.
 */
export const logprobsOnDevice = (logits: tf.Tensor2D, tokens: tf.Tensor1D, k: number): tf.Tensor2D =>
  tf.tidy(() => {
    const total = tf.logSumExp(logits, 1, true)
    // not `tf.gather`: TensorFlow.js reads its indices back
    const isSelected = tf.oneHot(tokens.toInt(), logits.shape[1], 1, 0, 'float32').greater(0)
    const selected = tf.where(isSelected, logits, tf.zerosLike(logits)).sum<tf.Tensor2D>(1, true).sub<tf.Tensor2D>(total)
    if (k === 0) return selected
    const { values, indices } = tf.topk(logits, k)
    return tf.concat([selected, indices.toFloat() as tf.Tensor2D, values.sub<tf.Tensor2D>(total)], 1)
  })

/** The log-probabilities of one row of `logprobsOnDevice`, of as many tokens as its options ask for. */
export const readLogprobs = (
  [logprob, ...top]: readonly number[],
  { topLogprobs = 0 }: GenerateOptions
): { readonly logprob: number; readonly topLogprobs?: readonly TopLogprob[] } => {
  const k = top.length / 2
  const list = Array.from({ length: Math.min(topLogprobs, k) }, (_, i) => ({ token: top[i]!, logprob: top[k + i]! }))
  return { logprob: logprob!, ...(topLogprobs > 0 ? { topLogprobs: list } : {}) }
}
