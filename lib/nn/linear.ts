import { module } from '../module.js'
import { tf } from '../tf.js'
import { type Activation, activations, type OnLastAxis } from './activation.js'
import { fused } from './fused.js'
import { normal, zeros } from './init.js'

export type { OnLastAxis } from './activation.js'

/** `act(x Wᵀ + b)` over the last axis: `[…, in] → […, out]` with `weight` `[out, in]` and `bias` `[out]`. */
export const affine = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: tf.Tensor2D,
  bias?: tf.Tensor1D,
  activation?: Activation
): tf.Tensor<R> =>
  fused('Affine', { x, weight, bias }, { activation }, () => {
    const rows = x.rank === 2 ? (x as tf.Tensor2D) : x.reshape<tf.Tensor2D>([-1, x.shape.at(-1)!])
    const product = tf.matMul(rows, weight, false, true)
    const sum = bias ? product.add<tf.Tensor2D>(bias) : product
    const y = activation ? activations[activation](sum) : sum
    return x.rank === 2
      ? (y as tf.Tensor as tf.Tensor<R>)
      : y.reshape([...x.shape.slice(0, -1), weight.shape[0]] as tf.ShapeMap[R])
  })

export interface LinearOptions {
  readonly bias?: boolean
  /** Applied to the result; none by default. */
  readonly activation?: Activation
}

/** `y = act(x Wᵀ + b)`: `[…, inFeatures] → […, outFeatures]`. Weight is `[out, in]`, as in `torch.nn.Linear`. */
export const linear = (inFeatures: number, outFeatures: number, { bias = true, activation }: LinearOptions = {}) =>
  module(
    {
      weight: normal<tf.Rank.R2>(outFeatures, inFeatures),
      ...(bias ? { bias: zeros<tf.Rank.R1>(outFeatures) } : {})
    },
    (self): OnLastAxis =>
      (x) =>
        affine(x, self.weight, self.bias, activation)
  )
