import { isTraced, withoutGradient } from '../autograd/tape.js'
import { trainingOptions } from '../autograd/train-mode.js'
import { isTapped, module } from '../module.js'
import { fused } from '../ops/fused.js'
import { hasKernel } from '../ops/kernel.js'
import { dequantizePacked, formatOf, type QuantizationFormat, type StoredWeight } from '../quantization/formats.js'
import { tf } from '../tf.js'
import { type Activation, activations } from './activation.js'
import { dropout } from './dropout.js'
import { weight, zeros } from './init.js'

export type { OnLastAxis } from './activation.js'

/**
 * A weight `[out, in]` with a low-rank update, `base + scaling · B A`. Source: Hu et al. 2021, LoRA. With magnitudes m, the rows of the sum
 * are scaled to these lengths. Source: Liu et al. 2024, DoRA.
 */
export interface LoraWeight {
  readonly base: StoredWeight
  /** `[rank, in]` */
  readonly lora_A: tf.Tensor2D
  /** `[out, rank]` */
  readonly lora_B: tf.Tensor2D
  readonly scaling: tf.Scalar
  /** `[out]` */
  readonly lora_magnitude_vector?: tf.Tensor1D
  /** Dropout rate on the input of A while training. */
  readonly dropout?: tf.Scalar
}

/** A weight `[out, in]` of a linear layer: float32, quantized, or either with a LoRA update. */
export type Weight = StoredWeight | LoraWeight

export const isLora = (weight: Weight): weight is LoraWeight => 'lora_A' in weight

const anyTraced = (tensors: ReadonlyArray<tf.Tensor | undefined>): boolean => tensors.some((x) => x !== undefined && isTraced(x))

/** The base weight `[out, in]` in float32. */
const floatBase = ({ base, lora_A }: LoraWeight): tf.Tensor2D => {
  const { format, tensor } = formatOf(base)
  return format === 'float32' ? tensor : dequantizePacked(format, tensor, lora_A.shape[1])
}

/**
 * Lengths of the rows of `base + scaling · B A`, `[out]`, a constant without gradient, computed without forming the sum.
 * Source: section 4.3 of Liu et al. 2024.
 */
const rowLengths = (weight: LoraWeight): tf.Tensor1D =>
  withoutGradient(() => {
    const { lora_A: A, lora_B: B, scaling: s } = weight
    const W = floatBase(weight)
    const rowSum = (a: tf.Tensor, b: tf.Tensor): tf.Tensor1D => a.mul(b).sum(1)
    const cross = rowSum(tf.matMul(W, A, false, true), B).mul(s.mul(2)) // 2 s · diag(W Aᵀ Bᵀ)
    const update = rowSum(tf.matMul(B, tf.matMul(A, A, false, true)), B).mul(s.square())
    return rowSum(W, W).add(cross).add<tf.Tensor1D>(update).sqrt()
  })

/** `act(m / ‖W'‖ ⊙ (x W'ᵀ) + b)` with `W' = base + scaling · B A`. */
const affineDora = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  { lora_magnitude_vector, dropout: rate, ...weight }: LoraWeight,
  bias?: tf.Tensor1D,
  activation?: Activation
): tf.Tensor<R> => {
  const scale = lora_magnitude_vector!.div<tf.Tensor1D>(rowLengths(weight))
  const scaled = (input: tf.Tensor<R>) => affineLora(input, weight).mul<tf.Tensor<R>>(scale)
  const dropped = rate && trainingOptions() ? dropout(x, rate.dataSync()[0]) : x
  // dropout leaves the base result alone and reaches all that the update adds to the base result
  const product =
    dropped === x ? scaled(x) : affine(x, weight.base).add<tf.Tensor<R>>(scaled(dropped).sub(affine(dropped, weight.base)))
  const y = bias ? product.add<tf.Tensor<R>>(bias) : product
  return activation ? activations[activation](y) : y
}

const affineLora = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: LoraWeight,
  bias?: tf.Tensor1D,
  activation?: Activation
): tf.Tensor<R> => {
  if (weight.lora_magnitude_vector) return affineDora(x, weight, bias, activation)
  const { base, lora_A, lora_B, scaling, dropout: rate } = weight
  const { format, tensor } = formatOf(base)
  const dropped = rate && trainingOptions() ? dropout(x, rate.dataSync()[0]) : x
  const inputs = { x, bias, lora_A, lora_B, scaling, loraInput: dropped === x ? undefined : dropped }
  const withBase = (weight: StoredWeight) => (t: typeof inputs) =>
    affine(t.x, weight, t.bias).add<tf.Tensor<R>>(
      affine(affine(t.loraInput ?? t.x, t.lora_A).mul<tf.Tensor<R>>(t.scaling), t.lora_B)
    )
  // the kernel takes float32 weights, and its backward pass differentiates neither base nor bias
  const unfused = format !== 'float32' || anyTraced([tensor, bias])
  const y = unfused
    ? withBase(base)(inputs)
    : fused('LoraLinear', { ...inputs, weight: tensor as tf.Tensor2D }, {}, ({ weight, ...t }) => withBase(weight)(t))
  return activation ? activations[activation](y) : y
}

/** `residual + act(x Wᵀ + b)` in one kernel, where one exists; a gradient needs a float32 weight and no activation. */
const affineWithResidual = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: StoredWeight,
  bias: tf.Tensor1D | undefined,
  activation: Activation | undefined,
  residual: tf.Tensor<R>
): tf.Tensor<R> => {
  const { format, tensor } = formatOf(weight)
  if ((activation || format !== 'float32') && anyTraced([x, tensor, bias, residual]))
    return residual.add<tf.Tensor<R>>(affine(x, weight, bias, activation))
  return fused('LinearResidual', { x, weight: tensor, bias, residual }, { activation, format }, (t) =>
    t.residual.add<tf.Tensor<R>>(affine(t.x, format === 'float32' ? (t.weight as tf.Tensor2D) : weight, t.bias, activation))
  )
}

/** `act(x Wᵀ + b)` over the last axis: `[…, in] → […, out]` with `weight` `[out, in]` and `bias` `[out]`; `residual` `[…, out]` is added. */
export const affine = <R extends tf.Rank>(
  x: tf.Tensor<R>,
  weight: Weight,
  bias?: tf.Tensor1D,
  activation?: Activation,
  residual?: tf.Tensor<R>
): tf.Tensor<R> => {
  if (isLora(weight)) {
    const y = affineLora(x, weight, bias, activation)
    return residual ? residual.add(y) : y
  }
  if (residual) return affineWithResidual(x, weight, bias, activation, residual)
  const { format, tensor } = formatOf(weight)
  // the activation's input is saved for its gradient instead of being computed twice
  if (activation && anyTraced([x, tensor, bias])) return activations[activation](affine(x, weight, bias))
  const kernel = format === 'float32' ? 'Linear' : 'QuantizedLinear' // an engine may have only one of the two
  return fused(kernel, { x, weight: tensor, bias }, { activation, format }, ({ x, weight, bias }) => {
    const [N, K] = [weight.shape[0], x.shape.at(-1)!]
    const rows = x.rank === 2 ? (x as tf.Tensor2D) : x.reshape<tf.Tensor2D>([-1, K])
    const dense = format === 'float32' ? weight : dequantizePacked(format, weight, K)
    const product = tf.matMul(rows, dense, false, true)
    const sum = bias ? product.add<tf.Tensor2D>(bias) : product
    const y = activation ? activations[activation](sum) : sum
    return x.rank === 2 ? (y as tf.Tensor as tf.Tensor<R>) : y.reshape([...x.shape.slice(0, -1), N] as tf.ShapeMap[R])
  })
}

/** The forward of a linear layer, with its weight and bias for kernels that fuse several layers. */
export interface Linear {
  /** `residual` is added to the result. */
  <R extends tf.Rank>(x: tf.Tensor<R>, residual?: tf.Tensor<R>): tf.Tensor<R>
  readonly weight: Weight
  readonly bias?: tf.Tensor1D | undefined
}

/** Whether a layer's weight has fewer bits than float32, so that its products are rounded too. */
export const isReduced = ({ weight }: Linear): boolean => formatOf(isLora(weight) ? weight.base : weight).format !== 'float32'

/** Weights and biases of several linear layers as inputs of one kernel, `weight`, `bias`, `weight1`, …, and the weights' formats. */
interface FusedInputs {
  readonly inputs: { readonly [name: string]: tf.Tensor | undefined; readonly weight?: tf.Tensor }
  readonly formats: readonly (QuantizationFormat | 'float32')[]
}

/** `undefined` where a weight has a LoRA update or a layer has a tap: then the layers run one by one. */
const storedInputs = (layers: readonly Linear[]): FusedInputs | undefined => {
  const weights = layers.map(({ weight }) => weight)
  if (layers.some(isTapped) || weights.some(isLora)) return undefined
  const stored = weights.map((weight) => formatOf(weight as StoredWeight))
  const inputs: { [name: string]: tf.Tensor | undefined } = {}
  for (const [i, { bias }] of layers.entries()) {
    inputs[`weight${i || ''}`] = stored[i]!.tensor
    inputs[`bias${i || ''}`] = bias
  }
  return { inputs, formats: stored.map(({ format }) => format) }
}

/** Inputs of one kernel for several layers; `undefined` where a weight has a LoRA update, a tensor needs a gradient or a layer has a tap. */
export const fusedInputs = (layers: readonly Linear[]): FusedInputs | undefined => {
  const shared = storedInputs(layers)
  return shared && !anyTraced(Object.values(shared.inputs)) ? shared : undefined
}

/** Outputs of two or three linear layers of one input. */
type Projections<L extends readonly Linear[], R extends tf.Rank> = { readonly [i in keyof L]: tf.Tensor<R> }

/**
 * The outputs of linear layers of one input, q, k and v of attention or gate and up of a gated MLP: one kernel prepares `x` once, where
 * one exists. A gradient needs float32 weights.
 */
export const projectTogether = <R extends tf.Rank, L extends readonly [Linear, Linear] | readonly [Linear, Linear, Linear]>(
  layers: L,
  x: tf.Tensor<R>
): Projections<L, R> => {
  const kernel = layers.length === 3 ? 'QkvLinear' : 'GateUpLinear'
  const oneByOne = () => layers.map((layer) => layer(x)) as unknown as Projections<L, R>
  const shared = storedInputs(layers)
  if (!shared) return oneByOne()
  const { inputs, formats } = shared
  const hasGradient = hasKernel(`${kernel}Backward`) && formats.every((format) => format === 'float32')
  if (!hasGradient && anyTraced([x, ...Object.values(inputs)])) return oneByOne()
  return fused(kernel, { x, ...inputs }, { formats }, oneByOne as () => readonly tf.Tensor[]) as unknown as Projections<L, R>
}

export interface LinearOptions {
  readonly bias?: boolean
  /** Applied to the result; none by default. */
  readonly activation?: Activation
  /** Whether the weight may be quantized in memory; false where small differences decide, as in a router. True by default. */
  readonly quantizable?: boolean
}

/** `y = act(x Wᵀ + b)`: `[…, inFeatures] → […, outFeatures]`. The weight is `[out, in]`, as in `torch.nn.Linear`, and may be quantized. */
export const linear = (
  inFeatures: number,
  outFeatures: number,
  { bias = true, activation, quantizable = true }: LinearOptions = {}
) =>
  module(
    {
      weight: { ...weight<Weight>(outFeatures, inFeatures), quantizable },
      ...(bias ? { bias: zeros<tf.Rank.R1>(outFeatures) } : {})
    },
    (self): Linear => {
      const forward = <R extends tf.Rank>(x: tf.Tensor<R>, residual?: tf.Tensor<R>) =>
        affine(x, self.weight, self.bias, activation, residual)
      return Object.assign(forward, { weight: self.weight, bias: self.bias })
    }
  )
