import { tf } from '../tf.js'
import { hasKernel, type KernelInputs, runKernel } from './kernel.js'

/** Gradient of each input by name, computed lazily from `dy`. */
type InputGradients = Readonly<Record<string, () => tf.Tensor>>

/**
 * The backward pass of a kernel, from the gradient of each output, the saved inputs, the attributes and the names of inputs that need a
 * gradient. `sumOf(name)` is the gradient that an input has from other operations; a rule that calls the function must add that gradient.
 */
type BackwardRule = (
  dys: readonly [tf.Tensor, ...tf.Tensor[]],
  inputs: Readonly<Record<string, tf.Tensor>>,
  attributes: Readonly<Record<string, unknown>>,
  wanted: ReadonlySet<string>,
  sumOf: (name: string) => tf.Tensor | undefined
) => InputGradients | undefined

/** `[…, D] → [N, D]`. */
const rows = (x: tf.Tensor): tf.Tensor2D => x.reshape([-1, x.shape.at(-1)!])

/** Sum over all axes but the last: gradients of gains and biases. */
const sumRows = (x: tf.Tensor): tf.Tensor => rows(x).sum(0)

/** Gradients by the engine's backward kernel, whose results belong to `names` in order; `undefined` without such a kernel. */
const backwardKernel = (
  kernel: string,
  inputs: KernelInputs,
  attributes: Readonly<Record<string, unknown>>,
  names: readonly string[]
): InputGradients | undefined => {
  if (!hasKernel(kernel)) return undefined
  const results = [runKernel<tf.Tensor | readonly tf.Tensor[]>(kernel, inputs, attributes)].flat()
  return Object.fromEntries(names.map((name, i) => [name, () => results[i]!]))
}

/** dx = dy W, dW = dyᵀ x, db = Σ dy. */
const affine: BackwardRule = ([dy], { x, weight }, { activation }, wanted) => {
  if (activation !== undefined) return undefined
  const flags = { needsX: wanted.has('x'), needsWeight: wanted.has('weight'), needsBias: wanted.has('bias') }
  return (
    backwardKernel('LinearBackward', { dy, x, weight }, flags, ['x', 'weight', 'bias']) ?? {
      x: () => tf.matMul(rows(dy), weight as tf.Tensor2D).reshape(x!.shape),
      weight: () => tf.matMul(rows(dy), rows(x!), true, false),
      bias: () => sumRows(dy)
    }
  )
}

/** `affine` of several layers of one input: dx is the sum over the layers. */
const affineTogether = (kernel: string, inputs: KernelInputs, count: number, wanted: ReadonlySet<string>) => {
  const indices = [...Array(count).keys()]
  const [weights, biases] = [indices.map((i) => `weight${i || ''}`), indices.map((i) => `bias${i || ''}`)]
  const needs = (names: readonly string[]) => names.map((name) => wanted.has(name))
  const attributes = { needsX: wanted.has('x'), needsWeight: needs(weights), needsBias: needs(biases) }
  return backwardKernel(kernel, inputs, attributes, ['x', ...indices.flatMap((i) => [weights[i]!, biases[i]!])])
}

/** y = x · r · w with r = 1/√(E[x²] + eps): dx = r · (g − n · E[g · n]) with g = dy · w, n = x · r. */
const rmsNorm: BackwardRule = ([dy], { x, weight }, { eps }, _, sumOf) => {
  const sum = hasKernel('RmsNormBackward') ? sumOf('x') : undefined
  const gradients = backwardKernel('RmsNormBackward', { dy, x, weight, sum }, { eps }, ['x', 'weight'])
  if (gradients || x!.shape.at(-1) !== weight!.size) return gradients // merged heads: differentiate the composition
  const r = x!
    .square()
    .mean(-1, true)
    .add(eps as number)
    .rsqrt()
  const n = x!.mul(r)
  return {
    x: () => {
      const g = dy.mul(weight!)
      return g.sub(n.mul(g.mul(n).mean(-1, true))).mul(r)
    },
    weight: () => sumRows(dy.mul(n))
  }
}

/** Backward rules of kernels. A kernel without a rule differentiates its composition, which computes the forward again. */
export const backwardRules: Readonly<Record<string, BackwardRule>> = {
  Linear: affine,
  LinearResidual: (dys, inputs, attributes, wanted, sumOf) => {
    const gradients = attributes.format === 'float32' ? affine(dys, inputs, attributes, wanted, sumOf) : undefined
    return gradients && { ...gradients, residual: () => dys[0].clone() }
  },
  QkvLinear: ([dq, dk, dv], { x, weight, weight1, weight2 }, _, wanted) =>
    affineTogether('QkvLinearBackward', { dq, dk, dv, x, weight, weight1, weight2 }, 3, wanted),
  GateUpLinear: ([dgate, dup], { x, weight, weight1 }, _, wanted) =>
    affineTogether('GateUpLinearBackward', { dgate, dup, x, weight, weight1 }, 2, wanted),
  // without a kernel for it the dequantized weight is differentiated
  QuantizedLinear: ([dy], { x, weight }, { activation, format }, wanted) =>
    activation === undefined && !wanted.has('weight')
      ? backwardKernel(
          'QuantizedLinearBackward',
          { dy, x, weight },
          { needsX: wanted.has('x'), needsWeight: false, needsBias: wanted.has('bias'), format },
          ['x', 'weight', 'bias']
        )
      : undefined,
  // weight and bias are never traced here, see affineLora
  LoraLinear: ([dy], { x, weight, lora_A, lora_B, scaling, loraInput }, _, wanted) =>
    backwardKernel(
      'LoraLinearBackward',
      { dy, x, weight, lora_A, lora_B, scaling, loraInput },
      {
        needsX: wanted.has('x'),
        needsLoraInput: wanted.has('loraInput'),
        needsLoraA: wanted.has('lora_A'),
        needsLoraB: wanted.has('lora_B')
      },
      ['x', 'loraInput', 'lora_A', 'lora_B']
    ),
  RmsNorm: rmsNorm,
  LayerNorm: ([dy], { x, weight }, { eps }, _, sumOf) => {
    const sum = hasKernel('LayerNormBackward') ? sumOf('x') : undefined
    return backwardKernel('LayerNormBackward', { dy, x, weight, sum }, { eps }, ['x', 'weight', 'bias'])
  },
  Activation: ([dy], { x }, { activation }) => backwardKernel('ActivationBackward', { dy, x }, { activation }, ['x']),
  GatedActivation: ([dy], { gate, up }, { activation }) =>
    backwardKernel('GatedActivationBackward', { dy, gate, up }, { activation }, ['gate', 'up']),

  ScaledResidual: ([dy], { branch, scale }) => ({
    branch: () => dy.mul(scale!),
    scale: () => sumRows(dy.mul(branch!)),
    ...backwardKernel('ScaledResidualBackward', { dy, branch, scale }, {}, ['branch', 'scale']),
    x: () => dy.clone()
  }),

  Rope: ([dy], { cos, sin }, attributes) => backwardKernel('Rope', { x: dy, cos, sin }, { ...attributes, inverse: true }, ['x']),

  Attention: ([dy], { q, k, v, mask, sinks, segments }, attributes) =>
    sinks ? undefined : backwardKernel('AttentionBackward', { dy, q, k, v, mask, segments }, attributes, ['q', 'k', 'v']),

  CrossEntropy: ([dy], { logits, labels }) => backwardKernel('CrossEntropyBackward', { dy, logits, labels }, {}, ['logits'])
}
