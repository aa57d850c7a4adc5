import { isTraced } from '../autograd/tape.js'
import { hasKernel, runKernel } from '../ops/kernel.js'
import type { tf } from '../tf.js'
import { attendCached, type CachedAttention, cachedStep, type FixedAttention, type LayerCache } from './kv-cache.js'
import { type Linear, mapsTogether } from './linear.js'
import type { RmsNorm } from './norm.js'

/** The maps of self-attention, and norms of each head's query and key where it has some. */
export interface AttentionMaps {
  readonly q_proj: Linear
  readonly k_proj: Linear
  readonly v_proj: Linear
  readonly o_proj: Linear
  readonly q_norm?: RmsNorm
  readonly k_norm?: RmsNorm
}

/** The same, step by step. */
const stepByStep = (
  x: tf.Tensor3D,
  norm: RmsNorm,
  { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm }: AttentionMaps,
  past: LayerCache | undefined,
  options: CachedAttention
) => {
  const n = norm(x)
  const [q, k] = [q_proj(n), k_proj(n)]
  const { out, cache } = attendCached([q_norm?.(q) ?? q, k_norm?.(k) ?? k, v_proj(n)], past, options)
  return { hidden: o_proj(out, x), cache }
}

/** What is fixed of a branch, for a kernel of the whole; nothing where a part has a way back, or an update, of its own. */
export const fixedBranch = (norm: RmsNorm, maps: AttentionMaps, { heads, keyHeads, window, sinks, scale }: FixedAttention) => {
  const together = mapsTogether([maps.q_proj, maps.k_proj, maps.v_proj, maps.o_proj])
  if (!together) return undefined
  const norms = { norm: norm.rms.weight, qNorm: maps.q_norm?.rms.weight, kNorm: maps.k_norm?.rms.weight }
  if ([sinks, ...Object.values(norms)].some((each) => each && isTraced(each))) return undefined
  const headDim = together.inputs.weight!.shape[0]! / heads
  const eps = { eps: norm.rms.eps, headEps: maps.q_norm?.rms.eps }
  const attributes = { forms: together.forms, ...eps, heads, keyHeads, window, scale: scale ?? headDim ** -0.5 }
  return { inputs: { ...norms, ...together.inputs, sinks }, attributes, headDim }
}

/**
 * The branch of causal self-attention in a pre-norm block, `x + o(attention(q(n), k(n), v(n)))` with `n = norm(x)`:
 * `[B, L, D] → [B, L, D]`, and the cache grown by L positions, see `attendCached`. In one step where no gradient is wanted: while a
 * model decodes, what surrounds an op costs more than a small product.
 */
export const attentionBranch = (
  x: tf.Tensor3D,
  norm: RmsNorm,
  maps: AttentionMaps,
  past: LayerCache | undefined,
  options: CachedAttention
): { readonly hidden: tf.Tensor3D; readonly cache: LayerCache } => {
  const [B, L] = x.shape
  const alone = !hasKernel('AttentionBranch') || options.segments || isTraced(x)
  const fixed = alone ? undefined : fixedBranch(norm, maps, options)
  if (!fixed) return stepByStep(x, norm, maps, past, options)
  const { inputs, attributes, cache } = cachedStep(past, [B, options.keyHeads, L, fixed.headDim], options)
  const hidden = runKernel<tf.Tensor3D>(
    'AttentionBranch',
    { x, ...inputs, ...fixed.inputs },
    { ...attributes, ...fixed.attributes }
  )
  return { hidden, cache }
}
