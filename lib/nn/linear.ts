import { module } from '../module.js'
import { tf } from '../tf.js'
import { fused } from './fused.js'
import { normal, zeros } from './init.js'

/** A layer that keeps the rank of its input and acts on the last axis. */
export type OnLastAxis = <R extends tf.Rank>(x: tf.Tensor<R>) => tf.Tensor<R>

/** `x Wᵀ + b` over the last axis: `[…, in] → […, out]` with `weight` `[out, in]` and `bias` `[out]`. */
export const affine = <R extends tf.Rank>(x: tf.Tensor<R>, weight: tf.Tensor2D, bias?: tf.Tensor1D): tf.Tensor<R> => {
  const rows = x.rank === 2 ? (x as tf.Tensor2D) : x.reshape<tf.Tensor2D>([-1, x.shape.at(-1)!])
  const y = fused('Affine', bias ? { x: rows, weight, bias } : { x: rows, weight }, {}, () => {
    const product = tf.matMul(rows, weight, false, true)
    return bias ? product.add<tf.Tensor2D>(bias) : product
  })
  return x.rank === 2 ? (y as tf.Tensor as tf.Tensor<R>) : y.reshape([...x.shape.slice(0, -1), weight.shape[0]] as tf.ShapeMap[R])
}

/** `y = x Wᵀ + b`: `[…, inFeatures] → […, outFeatures]`. Weight is `[out, in]`, as in `torch.nn.Linear`. */
export const linear = (inFeatures: number, outFeatures: number, { bias = true }: { readonly bias?: boolean } = {}) =>
  module(
    {
      weight: normal<tf.Rank.R2>(outFeatures, inFeatures),
      ...(bias ? { bias: zeros<tf.Rank.R1>(outFeatures) } : {})
    },
    (self): OnLastAxis =>
      (x) =>
        affine(x, self.weight, self.bias)
  )
