import { isTraced } from '../../autograd/tape.js'
import { isTapped, module } from '../../module.js'
import { hasKernel, runKernel } from '../../ops/kernel.js'
import { tf } from '../../tf.js'
import { fusedInputs, type Linear, projectTogether } from '../linear.js'
import type { RmsNorm } from '../norm.js'
import { fusible } from '../residual.js'
import { type AttentionOptions, attendCached, type CachedAttentionOptions, withUsedCache } from './cached-attention.js'
import { appendToCache, type LayerCache } from './kv-cache.js'

/** The child that taps on attention weights need; see `attentionWeightsChild`. */
interface WeightsChild {
  readonly attention_weights?: (weights: tf.Tensor4D) => tf.Tensor4D
}

/**
 * The identity of attention weights `[B, H, L, Lk]`, a child without parameters, on which a tap reads or replaces the weights. They are
 * computed for a tap only.
 */
export const attentionWeightsChild = module(
  {},
  () =>
    (weights: tf.Tensor4D): tf.Tensor4D =>
      weights
)

/** The linear layers of self-attention, and optional norms of every query head and key head. */
export interface AttentionProjections extends WeightsChild {
  readonly q_proj: Linear
  readonly k_proj: Linear
  readonly v_proj: Linear
  readonly o_proj: Linear
  readonly q_norm?: RmsNorm
  readonly k_norm?: RmsNorm
}

/** The same with queries, keys and values in one linear layer, in that order: `[D → (H + 2·G)·K]`. */
export interface StackedAttentionProjections extends WeightsChild {
  readonly qkv_proj: Linear
  readonly o_proj: Linear
}

/** Description of self-attention for fused kernels. */
export interface AttentionParts extends AttentionOptions {
  readonly projections: AttentionProjections | StackedAttentionProjections
}

/** Inputs of attention that all layers of one forward share, and the layer's own cache. */
export interface AttentionContext
  extends Pick<CachedAttentionOptions, 'rope' | 'padding' | 'segments' | 'cacheType' | 'useCache'> {
  readonly cache: LayerCache | undefined
  /** Whether the layer returns its attention weights. */
  readonly outputAttentions?: boolean | undefined
}

/** States `[B, L, D]`, the cache grown by L positions, and the attention weights `[B, H, L, Lk]` where they are requested. */
export interface AttentionOutput {
  readonly hidden: tf.Tensor3D
  /** Not to be read after a call with `useCache: false`: then the cache may be absent. */
  readonly cache: LayerCache
  readonly attentions?: tf.Tensor4D | undefined
}

/** Causal self-attention, `[B, L, D] → [B, L, D]`. */
export interface SelfAttention {
  (x: tf.Tensor3D, context: AttentionContext): AttentionOutput
  readonly [fusible]?: AttentionParts
}

const queriesKeysValues = (
  projections: AttentionParts['projections'],
  x: tf.Tensor3D,
  [H, G]: readonly [number, number]
): readonly [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D] => {
  if ('qkv_proj' in projections) {
    const qkv = projections.qkv_proj(x)
    const K = qkv.shape[2] / (H + 2 * G)
    return tf.split(qkv, [H * K, G * K, G * K], 2) as [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D]
  }
  const { q_proj, k_proj, v_proj, q_norm, k_norm } = projections
  const [q, k, v] = projectTogether([q_proj, k_proj, v_proj], x)
  return [q_norm?.(q) ?? q, k_norm?.(k) ?? k, v]
}

const unfused = (
  { projections, ...options }: AttentionParts,
  x: tf.Tensor3D,
  { cache: past, outputAttentions, ...context }: AttentionContext,
  residual?: tf.Tensor3D
): AttentionOutput => {
  const qkv = queriesKeysValues(projections, x, [options.numHeads, options.numKeyValueHeads])
  const { attention_weights: weightsTap } = projections
  const mapWeights = isTapped(weightsTap) ? weightsTap : outputAttentions ? (weights: tf.Tensor4D) => weights : undefined
  const { out, cache, weights } = attendCached(qkv, past, { ...context, ...options, mapWeights })
  return { hidden: projections.o_proj(out, residual), cache, ...(outputAttentions ? { attentions: weights } : {}) }
}

/** Inputs and attributes of an attention kernel that are the same at every step; `undefined` where a part needs a gradient or has LoRA. */
export const attentionBlockInputs = (
  norm: RmsNorm,
  { projections, numHeads, numKeyValueHeads, window, sinks, scale }: AttentionParts
) => {
  if ('qkv_proj' in projections) return undefined
  const { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm } = projections
  const shared = fusedInputs([q_proj, k_proj, v_proj, o_proj])
  if (!shared) return undefined
  const norms = { norm: norm.weight, qNorm: q_norm?.weight, kNorm: k_norm?.weight }
  if ([sinks, ...Object.values(norms)].some((x) => x && isTraced(x))) return undefined
  const headDim = shared.inputs.weight!.shape[0]! / numHeads
  const eps = { eps: norm.eps, headEps: q_norm?.eps }
  const heads = { numHeads, numKeyValueHeads }
  const attributes = { formats: shared.formats, ...eps, ...heads, window, scale: scale ?? headDim ** -0.5 }
  return { inputs: { ...norms, ...shared.inputs, sinks }, attributes, headDim }
}

/**
 * The residual block `x + attention(norm(x))`, `[B, L, D] → [B, L, D]`, and the cache grown by L positions. One kernel where no gradient
 * is wanted: while a model decodes, the overhead of an op exceeds the time of a small product.
 */
export const attentionBlock = (
  x: tf.Tensor3D,
  norm: RmsNorm,
  parts: AttentionParts,
  context: AttentionContext
): AttentionOutput => {
  const [B, L] = x.shape
  const canFuse = hasKernel('AttentionBlock') && !context.segments && !isTraced(x)
  const fixed = canFuse ? attentionBlockInputs(norm, parts) : undefined
  if (!fixed) return unfused(parts, norm(x), context, x)
  const { inputs, attributes, cache } = appendToCache(context.cache, [B, parts.numKeyValueHeads, L, fixed.headDim], context)
  const hidden = runKernel<tf.Tensor3D>(
    'AttentionBlock',
    { x, ...inputs, ...fixed.inputs },
    { ...attributes, headDim: fixed.headDim, ...fixed.attributes }
  )
  return withUsedCache({ hidden, cache }, context)
}

/**
 * Causal self-attention of bound projections with grouped heads, rotary positions and a KV cache: `[B, L, D] → [B, L, D]`.
 *
 * `module({ q_proj, k_proj, v_proj, o_proj }, (self) => selfAttention({ projections: self, numHeads: 8, numKeyValueHeads: 2 }))`
 */
export const selfAttention = (parts: AttentionParts): SelfAttention =>
  Object.assign((x: tf.Tensor3D, context: AttentionContext) => unfused(parts, x, context), { [fusible]: parts })
