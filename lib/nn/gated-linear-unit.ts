import { isTraced } from '../autograd/tape.js'
import { fused } from '../ops/fused.js'
import { tf } from '../tf.js'
import { type Activation, gated } from './activation.js'
import { fusedInputs, type Linear, projectTogether } from './linear.js'
import type { RmsNorm } from './norm.js'
import { fusible } from './residual.js'

/** The linear layers of a gated MLP: `[in → inner]` twice and `[inner → out]`. */
export interface GatedProjections {
  readonly gate_proj: Linear
  readonly up_proj: Linear
  readonly down_proj: Linear
}

/** The same with gate and up in one linear layer, gate first: `[in → 2·inner]`, `[inner → out]`. */
export interface StackedGatedProjections {
  readonly gate_up_proj: Linear
  readonly down_proj: Linear
}

/** Description of a gated MLP for fused kernels. */
export interface GatedMlpParts {
  readonly projections: GatedProjections | StackedGatedProjections
  readonly activation: Activation
}

/** The forward of a gated MLP. */
export interface GatedLinearUnit {
  <R extends tf.Rank>(x: tf.Tensor<R>): tf.Tensor<R>
  readonly [fusible]: GatedMlpParts
}

const gateAndUp = <R extends tf.Rank>(projections: GatedMlpParts['projections'], x: tf.Tensor<R>) => {
  if ('gate_up_proj' in projections) return tf.split(projections.gate_up_proj(x), 2, -1) as [tf.Tensor<R>, tf.Tensor<R>]
  return projectTogether([projections.gate_proj, projections.up_proj], x)
}

const unfused = <R extends tf.Rank>(
  { activation, projections }: GatedMlpParts,
  x: tf.Tensor<R>,
  residual?: tf.Tensor<R>
): tf.Tensor<R> => {
  const [gate, up] = gateAndUp(projections, x)
  return projections.down_proj(gated(activation, gate, up), residual)
}

/**
 * `down(act(gate(x)) ⊙ up(x))`, `[…, in] → […, out]`; with `norm` the whole residual block `x + mlp(norm(x))`. One kernel where no
 * gradient is wanted.
 */
export const gatedMlpBlock = <R extends tf.Rank>(parts: GatedMlpParts, x: tf.Tensor<R>, norm?: RmsNorm): tf.Tensor<R> => {
  const { activation, projections } = parts
  const composition = () => (norm ? unfused(parts, norm(x), x) : unfused(parts, x))
  if ('gate_up_proj' in projections || isTraced(x) || (norm && isTraced(norm.weight))) return composition()
  const shared = fusedInputs([projections.gate_proj, projections.up_proj, projections.down_proj])
  if (!shared) return composition()
  const inputs = { x, norm: norm?.weight, residual: norm && x, ...shared.inputs }
  return fused('GatedMlp', inputs, { activation, formats: shared.formats, eps: norm?.eps }, composition)
}

/**
 * Gated linear unit of bound projections, `down(act(gate(x)) ⊙ up(x))` over the last axis: SwiGLU with `silu`. Source: Shazeer 2020.
 *
 * `module({ gate_proj, up_proj, down_proj }, (self) => gatedLinearUnit('silu', self))`
 */
export const gatedLinearUnit = (activation: Activation, projections: GatedMlpParts['projections']): GatedLinearUnit => {
  const parts = { activation, projections }
  return Object.assign(<R extends tf.Rank>(x: tf.Tensor<R>) => gatedMlpBlock(parts, x), { [fusible]: parts })
}
