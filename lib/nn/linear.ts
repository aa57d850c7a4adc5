import { module } from '../module.js'
import { type Form, formOf, type StoredWeight, unpackWords } from '../packed.js'
import { isTraced } from '../tape.js'
import { tf } from '../tf.js'
import { trainingOptions } from '../training.js'
import { type Activation, activations, gated, type OnLastAxis } from './activation.js'
import { dropout } from './dropout.js'
import { fused } from './fused.js'
import { weight, zeros } from './init.js'

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
  if (isLora(weight)) return affineLora(x, weight, bias, activation)
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
export interface Linear extends OnLastAxis {
  readonly map: { readonly weight: Weight; readonly bias?: tf.Tensor1D | undefined }
}

/** `act(gate(x)) ⊙ up(x)`, `[…, in] → […, out]`: a gated linear unit, in one step where no gradient is wanted. Source: Shazeer 2020. */
export const gatedAffine = <R extends tf.Rank>(
  activation: Activation,
  x: tf.Tensor<R>,
  gate: Linear,
  up: Linear
): tf.Tensor<R> => {
  const [first, second] = [gate.map.weight, up.map.weight]
  const apart = () => gated(activation, gate(x), up(x))
  if (isLora(first) || isLora(second)) return apart()
  const [{ form, tensor: weight }, { form: upForm, tensor: upWeight }] = [formOf(first), formOf(second)]
  const inputs = { x, weight, bias: gate.map.bias, upWeight, upBias: up.map.bias }
  if (Object.values(inputs).some((each) => each && isTraced(each))) return apart() // each product has a way back of its own
  return fused('GatedAffine', inputs, { activation, form, upForm }, apart)
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
      const forward: OnLastAxis = (x) => affine(x, self.weight, self.bias, activation)
      return Object.assign(forward, { map: { weight: self.weight, bias: self.bias } })
    }
  )
