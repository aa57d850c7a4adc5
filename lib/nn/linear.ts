import { module } from '../module.js'
import { type Form, formOf, type StoredWeight, unpackWords } from '../packed.js'
import { isTraced } from '../tape.js'
import { tf } from '../tf.js'
import { trainingOptions } from '../training.js'
import { type Activation, activations, gated } from './activation.js'
import { dropout } from './dropout.js'
import { fused } from './fused.js'
import { weight, zeros } from './init.js'
import type { RmsNorm } from './norm.js'

export type { OnLastAxis } from './activation.js'

/** A weight `[out, in]` with a low-rank update, `base + scaling · B A`. Source: Hu et al. 2021, LoRA. */
export interface LoraWeight {
  readonly base: StoredWeight
  /** `[rank, in]` */
  readonly lora_A: tf.Tensor2D
  /** `[out, rank]` */
  readonly lora_B: tf.Tensor2D
  readonly scaling: tf.Scalar
  /** Share of what goes into A that is dropped while training. */
  readonly dropout?: tf.Scalar
}

/** What `affine` takes for a weight `[out, in]`. */
export type Weight = StoredWeight | LoraWeight

const isLora = (weight: Weight): weight is LoraWeight => 'lora_A' in weight

const affineLora = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: Weight,
  bias?: tf.Tensor1D,
  activation?: Activation
): tf.Tensor<R> => {
  const { base, lora_A: A, lora_B: B, scaling, dropout: rate } = weight as LoraWeight
  const into = rate && trainingOptions() ? dropout(x, rate.dataSync()[0]) : x
  const y = affine(x, base, bias).add<tf.Tensor<R>>(affine(affine(into, A).mul<tf.Tensor<R>>(scaling), B))
  return activation ? activations[activation](y) : y
}

/** `act(x Wᵀ + b)` over the last axis: `[…, in] → […, out]` with `weight` `[out, in]` and `bias` `[out]`; `plus`, `[…, out]`, is added. */
export const affine = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: Weight,
  bias?: tf.Tensor1D,
  activation?: Activation,
  plus?: tf.Tensor<R>
): tf.Tensor<R> => {
  if (plus && (isLora(weight) || isTraced(x) || isTraced(plus))) return plus.add(affine(x, weight, bias, activation))
  if (isLora(weight)) return affineLora(x, weight, bias, activation)
  const { form, tensor } = formOf(weight)
  // what the activation was given is kept for its gradient, not computed twice
  if (activation && [x, tensor, bias].some((each) => each && isTraced(each)))
    return activations[activation](affine(x, weight, bias))
  const kernel = form === 'float32' ? 'Affine' : 'PackedAffine' // an engine may have the one without the other
  return fused(kernel, { x, weight: tensor, bias, plus }, { activation, form }, ({ x, weight, bias, plus }) => {
    const [N, K] = [weight.shape[0], x.shape.at(-1)!]
    const rows = x.rank === 2 ? (x as tf.Tensor2D) : x.reshape<tf.Tensor2D>([-1, K])
    const product = tf.matMul(rows, form === 'float32' ? weight : unpackWords(form as Form, weight, K), false, true)
    const sum = bias ? product.add<tf.Tensor2D>(bias) : product
    const y = activation ? activations[activation](sum) : sum
    const shaped = x.rank === 2 ? (y as tf.Tensor) : y.reshape([...x.shape.slice(0, -1), N])
    return (plus ? plus.add(shaped) : shaped) as tf.Tensor<R>
  })
}

/** A linear layer's forward, and what it multiplies with: for functions that join several in a single step. */
export interface Linear {
  /** `plus` is added to the result. */
  <R extends tf.Rank>(x: tf.Tensor<R>, plus?: tf.Tensor<R>): tf.Tensor<R>
  readonly map: { readonly weight: Weight; readonly bias?: tf.Tensor1D | undefined }
}

/** Inputs and attributes of products of `norm(x)` with several maps in one step; nothing where each has a way back, or an update, of its own. */
const joined = (x: tf.Tensor, maps: readonly Linear[], norm: RmsNorm | undefined) => {
  const weights = maps.map(({ map }) => map.weight)
  if (weights.some(isLora)) return undefined
  const stored = weights.map((each) => formOf(each as StoredWeight))
  const named = maps.flatMap(({ map }, i) => [
    [`weight${i || ''}`, stored[i]!.tensor] as const,
    [`bias${i || ''}`, map.bias] as const
  ])
  const inputs: Readonly<Record<string, tf.Tensor | undefined>> = { x, norm: norm?.rms.weight, ...Object.fromEntries(named) }
  if (Object.values(inputs).some((each) => each && isTraced(each))) return undefined
  return { inputs, attributes: { forms: stored.map(({ form }) => form), eps: norm?.rms.eps } }
}

/** `norm(x)` through each of three maps, `[…, in] → […, out]` each: in one step where no gradient is wanted. */
export const projections = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  norm: RmsNorm,
  maps: readonly [Linear, Linear, Linear]
): readonly [tf.Tensor<R>, tf.Tensor<R>, tf.Tensor<R>] => {
  const apart = (): [tf.Tensor<R>, tf.Tensor<R>, tf.Tensor<R>] => {
    const normed = norm(x)
    return [maps[0](normed), maps[1](normed), maps[2](normed)]
  }
  const join = joined(x, maps, norm)
  return join ? fused('Projections', join.inputs, join.attributes, apart) : apart()
}

/** `act(gate(x)) ⊙ up(x)`, `[…, in] → […, out]`, of `norm(x)` if there is one: a gated linear unit, in one step where no gradient is wanted. Source: Shazeer 2020. */
export const gatedAffine = <R extends tf.Rank>(
  activation: Activation,
  x: tf.Tensor<R>,
  gate: Linear,
  up: Linear,
  norm?: RmsNorm
): tf.Tensor<R> => {
  const apart = () => {
    const normed = norm ? norm(x) : x
    return gated(activation, gate(normed), up(normed))
  }
  const join = joined(x, [gate, up], norm)
  return join ? fused('GatedAffine', join.inputs, { ...join.attributes, activation }, apart) : apart()
}

export interface LinearOptions {
  readonly bias?: boolean
  /** Applied to the result; none by default. */
  readonly activation?: Activation
}

/** `y = act(x Wᵀ + b)`: `[…, inFeatures] → […, outFeatures]`. Weight is `[out, in]`, as in `torch.nn.Linear`, or another form of it. */
export const linear = (inFeatures: number, outFeatures: number, { bias = true, activation }: LinearOptions = {}) =>
  module(
    {
      weight: weight<Weight>(outFeatures, inFeatures),
      ...(bias ? { bias: zeros<tf.Rank.R1>(outFeatures) } : {})
    },
    (self): Linear => {
      const forward = <R extends tf.Rank>(x: tf.Tensor<R>, plus?: tf.Tensor<R>) =>
        affine(x, self.weight, self.bias, activation, plus)
      return Object.assign(forward, { map: { weight: self.weight, bias: self.bias } })
    }
  )
