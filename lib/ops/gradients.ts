import { tf } from '../tf.js'
import { hasKernel, type Inputs, runKernel } from './kernel.js'

/** What `dy` becomes for each input, computed only for those that are asked for. */
type Slopes = Readonly<Record<string, () => tf.Tensor>>

/** A way back: `dy`, the inputs that were given, the attributes, and for which inputs it is wanted. */
type Slope = (
  dy: tf.Tensor,
  inputs: Readonly<Record<string, tf.Tensor>>,
  attributes: Readonly<Record<string, unknown>>,
  wanted: ReadonlySet<string>
) => Slopes | undefined

/** `[…, D] → [N, D]`. */
const rows = (x: tf.Tensor): tf.Tensor2D => x.reshape([-1, x.shape.at(-1)!])

/** Sum over all axes but the last: gradients of gains and biases. */
const overRows = (x: tf.Tensor): tf.Tensor => rows(x).sum(0)

/** An engine's own kernel for a way back, one result for each name in order; none where it has no such kernel. */
const own = (
  kernel: string,
  inputs: Inputs,
  attributes: Readonly<Record<string, unknown>>,
  names: readonly string[]
): Slopes | undefined => {
  if (!hasKernel(kernel)) return undefined
  const results = [runKernel<tf.Tensor | readonly tf.Tensor[]>(kernel, inputs, attributes)].flat()
  return Object.fromEntries(names.map((name, i) => [name, () => results[i]!]))
}

/** dx = dy W, dW = dyᵀ x, db = Σ dy. */
const affine: Slope = (dy, { x, weight }, { activation }, wanted) => {
  if (activation !== undefined) return undefined
  const flags = { forX: wanted.has('x'), forWeight: wanted.has('weight'), forBias: wanted.has('bias') }
  return (
    own('AffineSlopes', { dy, x, weight }, flags, ['x', 'weight', 'bias']) ?? {
      x: () => tf.matMul(rows(dy), weight as tf.Tensor2D).reshape(x!.shape),
      weight: () => tf.matMul(rows(dy), rows(x!), true, false),
      bias: () => overRows(dy)
    }
  )
}

/** y = x · r · w with r = 1/√(E[x²] + eps): dx = r · (g − n · E[g · n]) with g = dy · w, n = x · r. */
const rmsNorm: Slope = (dy, { x, weight }, { eps }) => {
  const found = own('RmsNormSlopes', { dy, x, weight }, { eps }, ['x', 'weight'])
  if (found || x!.shape.at(-1) !== weight!.size) return found // heads side by side: as the composition does
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
    weight: () => overRows(dy.mul(n))
  }
}

/** Kernels whose way back is not that of their composition, which would compute their result again. */
export const slopes: Readonly<Record<string, Slope>> = {
  Affine: affine,
  // weight and bias are never traced here, see affineLora
  LoraAffine: (dy, { x, weight, lora_A, lora_B, scaling, into }, _, wanted) =>
    own('LoraAffineSlopes', { dy, x, weight, lora_A, lora_B, scaling, into }, { wanted }, ['x', 'into', 'lora_A', 'lora_B']),
  RmsNorm: rmsNorm,
  LayerNorm: (dy, { x, weight }, { eps }) => own('LayerNormSlopes', { dy, x, weight }, { eps }, ['x', 'weight', 'bias']),
  Activation: (dy, { x }, { activation }) => own('ActivationSlopes', { dy, x }, { activation }, ['x']),
  Gated: (dy, { gate, up }, { activation }) => own('GatedSlopes', { dy, gate, up }, { activation }, ['gate', 'up']),

  Residual: (dy, { branch, scale }) => ({
    branch: () => dy.mul(scale!),
    scale: () => overRows(dy.mul(branch!)),
    ...own('ResidualSlopes', { dy, branch, scale }, {}, ['branch', 'scale']),
    x: () => dy.clone()
  }),

  // a turn by the opposite angle
  Rope: (dy, { cos, sin }, { heads }) => (heads ? undefined : own('Rope', { x: dy, cos, sin: sin!.neg() }, {}, ['x'])),

  Attention: (dy, { q, k, v, padding, sinks }, attributes) =>
    sinks ? undefined : own('AttentionSlopes', { dy, q, k, v, padding }, attributes, ['q', 'k', 'v']),

  TokenLosses: (dy, { logits, labels }) => own('TokenLossSlopes', { dy, logits, labels }, {}, ['logits'])
}
