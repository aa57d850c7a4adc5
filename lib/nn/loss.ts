import { tf } from '../tf.js'

/**
 * Mean of `−log softmax(logits)[label]` over the rows whose label is not −100: `[N, V]`, `[N]` int32 → scalar.
 * Source: `torch.nn.functional.cross_entropy` with its default `ignore_index`.
 */
export const crossEntropy = (logits: tf.Tensor2D, labels: tf.Tensor1D): tf.Scalar => {
  const V = logits.shape[1]
  const kept = [...labels.dataSync().entries()].filter(([, label]) => label !== -100)
  return tf.tidy(() => {
    const rows = tf.gather(
      logits,
      tf.tensor1d(
        kept.map(([row]) => row),
        'int32'
      )
    )
    const wanted = tf.tensor1d(
      kept.map(([, label]) => label),
      'int32'
    )
    const negativeLogLikelihood = tf.customGrad((x, save) => {
      const z = x as tf.Tensor2D
      ;(save as tf.GradSaveFunc)([z, wanted])
      const positions = tf.stack([tf.range(0, kept.length, 1, 'int32'), wanted], 1) as tf.Tensor2D
      return {
        value: tf.logSumExp(z, 1).sub(tf.gatherND(z, positions)).mean(),
        gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) =>
          tf.softmax(saved[0]!).sub(tf.oneHot(saved[1]!, V)).mul(dy.div(kept.length))
      }
    })
    return negativeLogLikelihood(rows) as tf.Scalar
  })
}

/** Loss of predicting each token from those before it: `logits` `[B, L, V]`, `labels` `[B, L]`, −100 ignored. Source: `ForCausalLMLoss`. */
export const causalLoss = (logits: tf.Tensor3D, labels: tf.Tensor2D): tf.Scalar => {
  const [B, L, V] = logits.shape
  const predicted = logits.slice([0, 0, 0], [B, L - 1, V]).reshape<tf.Tensor2D>([B * (L - 1), V])
  return crossEntropy(predicted, labels.slice([0, 1], [B, L - 1]).reshape([-1]))
}
