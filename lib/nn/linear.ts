import { module } from '../module.js'
import { isTraced } from '../tape.js'
import { tf } from '../tf.js'
import { trainingOptions } from '../training.js'
import { type Activation, activations, type OnLastAxis } from './activation.js'
import { dropout } from './dropout.js'
import { fused } from './fused.js'
import { normal, zeros } from './init.js'

export type { OnLastAxis } from './activation.js'

/** A weight `[out, in]` with a low-rank update, `base + scaling · B A`. Source: Hu et al. 2021, LoRA. */
export interface LoraWeight {
  readonly base: Weight
  /** `[rank, in]` */
  readonly lora_A: tf.Tensor2D
  /** `[out, rank]` */
  readonly lora_B: tf.Tensor2D
  readonly scaling: tf.Scalar
  /** Share of what goes into A that is dropped while training. */
  readonly dropout?: tf.Scalar
}

/** What `affine` takes for a weight. */
export type Weight = tf.Tensor2D | LoraWeight

const affineLora: typeof affine = (x, weight, bias, activation) => {
  const { base, lora_A: A, lora_B: B, scaling, dropout: rate } = weight as LoraWeight
  const into = rate && trainingOptions() ? dropout(x, rate.dataSync()[0]) : x
  const y = affine(x, base, bias).add<typeof x>(affine(affine(into, A).mul<typeof x>(scaling), B))
  return activation ? activations[activation](y) : y
}

/** `act(x Wᵀ + b)` over the last axis: `[…, in] → […, out]` with `weight` `[out, in]` and `bias` `[out]`. */
export const affine = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: Weight,
  bias?: tf.Tensor1D,
  activation?: Activation
): tf.Tensor<R> => {
  if ('lora_A' in weight) return affineLora(x, weight, bias, activation)
  // what the activation was given is kept for its gradient, not computed twice
  if (activation && [x, weight, bias].some((each) => each && isTraced(each)))
    return activations[activation](affine(x, weight, bias))
  return fused('Affine', { x, weight, bias }, { activation }, ({ x, weight, bias }) => {
    const rows = x.rank === 2 ? (x as tf.Tensor2D) : x.reshape<tf.Tensor2D>([-1, x.shape.at(-1)!])
    const product = tf.matMul(rows, weight, false, true)
    const sum = bias ? product.add<tf.Tensor2D>(bias) : product
    const y = activation ? activations[activation](sum) : sum
    return x.rank === 2
      ? (y as tf.Tensor as tf.Tensor<R>)
      : y.reshape([...x.shape.slice(0, -1), weight.shape[0]] as tf.ShapeMap[R])
  })
}

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
