import { module, type Param } from '../module.js'
import { formOf, unpack, type Weight } from '../packed.js'
import { tf } from '../tf.js'
import { type Activation, activations, gated, type OnLastAxis } from './activation.js'
import { fused } from './fused.js'
import { normal, zeros } from './init.js'

export type { OnLastAxis } from './activation.js'

/** A weight `[N, K]`, in whatever form, and a bias `[N]` if there is one. */
export interface AffineMap {
  readonly weight: Weight
  readonly bias?: tf.Tensor1D | undefined
}

/** `act(x Wᵀ + b)` over the last axis: `[…, K] → […, N]` with `weight` `[N, K]` and `bias` `[N]`. */
export const affine = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: Weight,
  bias?: tf.Tensor1D,
  activation?: Activation
): tf.Tensor<R> => {
  const { form, tensor } = formOf(weight)
  return fused('Affine', { x, weight: tensor, bias }, { activation, form }, () => {
    const [N, K] = [tensor.shape[0], x.shape.at(-1)!]
    const rows = x.rank === 2 ? (x as tf.Tensor2D) : x.reshape<tf.Tensor2D>([-1, K])
    const product = tf.matMul(rows, unpack(weight, K), false, true)
    const sum = bias ? product.add<tf.Tensor2D>(bias) : product
    const y = activation ? activations[activation](sum) : sum
    return x.rank === 2 ? (y as tf.Tensor as tf.Tensor<R>) : y.reshape([...x.shape.slice(0, -1), N] as tf.ShapeMap[R])
  })
}

/** A linear layer's forward, and what it multiplies with: for functions that join several of one input in a single step. */
export interface Linear extends OnLastAxis {
  readonly map: AffineMap
}

/** `act(gate(x)) ⊙ up(x)`, `[…, K] → […, N]`: a gated linear unit in one step. Source: Shazeer 2020. */
export const gatedAffine = <R extends tf.Rank>(
  activation: Activation,
  x: tf.Tensor<R>,
  gate: Linear,
  up: Linear
): tf.Tensor<R> => {
  const [first, second] = [formOf(gate.map.weight), formOf(up.map.weight)]
  const inputs = { x, weight: first.tensor, bias: gate.map.bias, upWeight: second.tensor, upBias: up.map.bias }
  return fused('GatedAffine', inputs, { activation, form: first.form, upForm: second.form }, () =>
    gated(activation, gate(x), up(x))
  )
}

export interface LinearOptions {
  readonly bias?: boolean
  /** Applied to the result; none by default. */
  readonly activation?: Activation
}

/** `y = act(x Wᵀ + b)`: `[…, inFeatures] → […, outFeatures]`. Weight is `[out, in]`, as in `torch.nn.Linear`, or a packed form of it. */
export const linear = (inFeatures: number, outFeatures: number, { bias = true, activation }: LinearOptions = {}) =>
  module(
    {
      weight: normal<tf.Rank.R2>(outFeatures, inFeatures) as Param<Weight>,
      ...(bias ? { bias: zeros<tf.Rank.R1>(outFeatures) } : {})
    },
    (self): Linear => {
      const forward: OnLastAxis = (x) => affine(x, self.weight, self.bias, activation)
      return Object.assign(forward, { map: { weight: self.weight, bias: self.bias } })
    }
  )
