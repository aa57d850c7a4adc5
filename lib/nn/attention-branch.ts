import { isTraced } from '../tape.js'
import type { tf } from '../tf.js'
import { fused } from './fused.js'
import { attendCached, type CachedAttention, cachedStep, type LayerCache } from './kv-cache.js'
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

/**
 * What a kernel of the whole is given beside x, and the cache that it leaves; nothing where it can't be: for segments, or a part with
 * a way back, or an update, of its own.
 */
export const branchStep = (
  x: tf.Tensor3D,
  norm: RmsNorm,
  maps: AttentionMaps,
  past: LayerCache | undefined,
  options: CachedAttention
) => {
  const { segments, sinks } = options
  const together = segments ? undefined : mapsTogether([maps.q_proj, maps.k_proj, maps.v_proj, maps.o_proj])
  if (!together) return undefined
  const norms = { norm: norm.rms.weight, qNorm: maps.q_norm?.rms.weight, kNorm: maps.k_norm?.rms.weight }
  if ([x, sinks, ...Object.values(norms)].some((each) => each && isTraced(each))) return undefined
  const step = cachedStep(past, x.shape[1], options)
  const scale = options.scale ?? (together.inputs.weight!.shape[0]! / options.heads) ** -0.5
  const eps = { eps: norm.rms.eps, headEps: maps.q_norm?.rms.eps }
  return {
    inputs: { ...norms, ...together.inputs, ...step.inputs },
    attributes: { forms: together.forms, ...eps, ...step.attributes, scale },
    grown: step.grown
  }
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
  const step = branchStep(x, norm, maps, past, options)
  if (!step) return stepByStep(x, norm, maps, past, options)
  let apart: ReturnType<typeof stepByStep> | undefined
  const [hidden, key, value] = fused(
    'AttentionBranch',
    { x, ...step.inputs },
    step.attributes,
    (): readonly [tf.Tensor3D, tf.Tensor4D, tf.Tensor4D] => {
      apart = stepByStep(x, norm, maps, past, options)
      return [apart.hidden, apart.cache.key, apart.cache.value]
    }
  )
  return apart ?? { hidden, cache: step.grown(key, value) }
}
