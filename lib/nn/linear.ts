import { isTraced } from '../autograd/tape.js'
import { trainingOptions } from '../autograd/train-mode.js'
import { module } from '../module.js'
import { fused } from '../ops/fused.js'
import { type Form, formOf, type StoredWeight, unpackWords } from '../quantization/formats.js'
import { tf } from '../tf.js'
import { type Activation, activations, gated } from './activation.js'
import { dropout } from './dropout.js'
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
  const { base, lora_A, lora_B, scaling, dropout: rate } = weight as LoraWeight
  const { form, tensor } = formOf(base)
  const dropped = rate && trainingOptions() ? dropout(x, rate.dataSync()[0]) : x
  const inputs = { x, bias, lora_A, lora_B, scaling, into: dropped === x ? undefined : dropped }
  const beside = (weight: StoredWeight) => (given: typeof inputs) =>
    affine(given.x, weight, given.bias).add<tf.Tensor<R>>(
      affine(affine(given.into ?? given.x, given.lora_A).mul<tf.Tensor<R>>(given.scaling), given.lora_B)
    )
  const apart = form !== 'float32' || isTraced(tensor) || (bias && isTraced(bias)) // then it has no kernel, or no way back
  const y = apart
    ? beside(base)(inputs)
    : fused('LoraAffine', { ...inputs, weight: tensor as tf.Tensor2D }, {}, ({ weight, ...given }) => beside(weight)(given))
  return activation ? activations[activation](y) : y
}

/** The sum in the product's step, where there is such a kernel and no gradient is wanted. */
const affinePlus = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: StoredWeight,
  bias: tf.Tensor1D | undefined,
  activation: Activation | undefined,
  plus: tf.Tensor<R>
): tf.Tensor<R> => {
  const { form, tensor } = formOf(weight)
  const apart = () => plus.add<tf.Tensor<R>>(affine(x, weight, bias, activation))
  if ([x, tensor, bias, plus].some((each) => each && isTraced(each))) return apart()
  return fused('AffinePlus', { x, weight: tensor, bias, plus }, { activation, form }, apart)
}

/** `act(x Wᵀ + b)` over the last axis: `[…, in] → […, out]` with `weight` `[out, in]` and `bias` `[out]`; `plus`, `[…, out]`, is added. */
export const affine = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: Weight,
  bias?: tf.Tensor1D,
  activation?: Activation,
  plus?: tf.Tensor<R>
): tf.Tensor<R> => {
  if (isLora(weight)) return plus ? plus.add(affineLora(x, weight, bias, activation)) : affineLora(x, weight, bias, activation)
  if (plus) return affinePlus(x, weight, bias, activation, plus)
  const { form, tensor } = formOf(weight)
  // what the activation was given is kept for its gradient, not computed twice
  if (activation && [x, tensor, bias].some((each) => each && isTraced(each)))
    return activations[activation](affine(x, weight, bias))
  const kernel = form === 'float32' ? 'Affine' : 'PackedAffine' // an engine may have the one without the other
  return fused(kernel, { x, weight: tensor, bias }, { activation, form }, ({ x, weight, bias }) => {
    const [N, K] = [weight.shape[0], x.shape.at(-1)!]
    const rows = x.rank === 2 ? (x as tf.Tensor2D) : x.reshape<tf.Tensor2D>([-1, K])
    const product = tf.matMul(rows, form === 'float32' ? weight : unpackWords(form as Form, weight, K), false, true)
    const sum = bias ? product.add<tf.Tensor2D>(bias) : product
    const y = activation ? activations[activation](sum) : sum
    return x.rank === 2 ? (y as tf.Tensor as tf.Tensor<R>) : y.reshape([...x.shape.slice(0, -1), N] as tf.ShapeMap[R])
  })
}

/** A linear layer's forward, and what it multiplies with: for functions that join several in a single step. */
export interface Linear {
  /** `plus` is added to the result. */
  <R extends tf.Rank>(x: tf.Tensor<R>, plus?: tf.Tensor<R>): tf.Tensor<R>
  readonly map: { readonly weight: Weight; readonly bias?: tf.Tensor1D | undefined }
}

/**
 * Weights and biases of several maps, for a kernel that has them all: `weight`, `weight1`, …, and the weights' forms; nothing where
 * one has a way back, or an update, of its own.
 */
export const mapsTogether = (maps: readonly Linear[]) => {
  const weights = maps.map(({ map }) => map.weight)
  if (weights.some(isLora)) return undefined
  const stored = weights.map((each) => formOf(each as StoredWeight))
  const inputs: { [name: string]: tf.Tensor | undefined; weight?: tf.Tensor } = {}
  for (const [i, { map }] of maps.entries()) {
    inputs[`weight${i || ''}`] = stored[i]!.tensor
    inputs[`bias${i || ''}`] = map.bias
  }
  if (Object.values(inputs).some((each) => each && isTraced(each))) return undefined
  return { inputs, forms: stored.map(({ form }) => form) }
}

/** The three maps of a gated unit, `[in → inner]` twice and `[inner → out]`. */
export interface GatedMaps {
  readonly gate_proj: Linear
  readonly up_proj: Linear
  readonly down_proj: Linear
}

/**
 * `down(act(gate(x)) ⊙ up(x))`, `[…, in] → […, out]`; given a norm, the branch `x + down(act(gate(n)) ⊙ up(n))` of `n = norm(x)`. In
 * one step where no gradient is wanted. Source: Shazeer 2020.
 */
export const gatedUnit = <R extends tf.Rank>(
  activation: Activation,
  x: tf.Tensor<R>,
  { gate_proj, up_proj, down_proj }: GatedMaps,
  norm?: RmsNorm
): tf.Tensor<R> => {
  const apart = () => {
    const normed = norm ? norm(x) : x
    return down_proj(gated(activation, gate_proj(normed), up_proj(normed)), norm && x)
  }
  const maps = mapsTogether([gate_proj, up_proj, down_proj])
  if (!maps || isTraced(x) || (norm && isTraced(norm.rms.weight))) return apart()
  const inputs = { x, norm: norm?.rms.weight, plus: norm && x, ...maps.inputs }
  return fused('GatedUnit', inputs, { activation, forms: maps.forms, eps: norm?.rms.eps }, apart)
}

export interface LinearOptions {
  readonly bias?: boolean
  /** Applied to the result; none by default. */
  readonly activation?: Activation
  /** Whether the weight may lie in memory with fewer bits than float32; not where small differences decide, as in a router. */
  readonly packable?: boolean
}

/** `y = act(x Wᵀ + b)`: `[…, inFeatures] → […, outFeatures]`. Weight is `[out, in]`, as in `torch.nn.Linear`, or another form of it. */
export const linear = (
  inFeatures: number,
  outFeatures: number,
  { bias = true, activation, packable = true }: LinearOptions = {}
) =>
  module(
    {
      weight: { ...weight<Weight>(outFeatures, inFeatures), packable },
      ...(bias ? { bias: zeros<tf.Rank.R1>(outFeatures) } : {})
    },
    (self): Linear => {
      const forward = <R extends tf.Rank>(x: tf.Tensor<R>, plus?: tf.Tensor<R>) =>
        affine(x, self.weight, self.bias, activation, plus)
      return Object.assign(forward, { map: { weight: self.weight, bias: self.bias } })
    }
  )
