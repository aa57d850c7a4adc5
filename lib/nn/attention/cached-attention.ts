import { isTraced } from '../../autograd/tape.js'
import { hasKernel, runKernel } from '../../ops/kernel.js'
import { expectAxes, expectWhole, ShapeError } from '../../shape.js'
import { tf } from '../../tf.js'
import { applyRope, applyRopeMerged } from '../rope.js'
import {
  type AttentionMaskOptions,
  attend,
  attendMergedCausal,
  attentionWeights,
  mergeHeads,
  splitHeads,
  weightedValues
} from './attention.js'
import { appendToCache, type CacheStep, type LayerCache, layerCache, usedKeys, usedValues } from './kv-cache.js'

/** Heads, window, sinks and scale of an attention layer: the same for every step. */
export interface AttentionOptions extends Pick<AttentionMaskOptions, 'window' | 'sinks'> {
  /** H. */
  readonly numHeads: number
  /** G, a divisor of H: the number of key-value heads. */
  readonly numKeyValueHeads: number
  /** Factor on the scores; K^-½ by default. */
  readonly scale?: number | undefined
}

/** Options of one attention step: those of the layer, rotary tables and masks. */
export interface CachedAttentionOptions extends AttentionOptions, Pick<AttentionMaskOptions, 'segments'>, CacheStep {
  /** Whether the cache after the step is needed, true by default; with false it may be absent, which saves copies of keys and values. */
  readonly useCache?: boolean | undefined
  /**
   * Receives the attention weights `[B, H, L, Lk]` and returns those that multiply the values; the given weights themselves change
   * nothing. The weights are computed only if this function is there.
   */
  readonly mapWeights?: ((weights: tf.Tensor4D) => tf.Tensor4D) | undefined
}

/** Output of one attention step: `[B, L, H·K]`, the cache after the step, and with `mapWeights` its result. */
interface CachedAttentionOutput {
  readonly out: tf.Tensor3D
  readonly cache: LayerCache
  readonly weights?: tf.Tensor4D
}

/** A first step on merged heads, without transposed copies of queries and results, or of keys and values that no cache needs. */
const attendFromStart = (
  [q, k, v]: readonly [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D],
  {
    numHeads,
    numKeyValueHeads,
    rope,
    scale,
    window,
    padding,
    sinks,
    segments,
    useCache = true,
    mapWeights
  }: CachedAttentionOptions & { readonly scale: number }
): CachedAttentionOutput => {
  const [queries, keys] = [applyRopeMerged(q, numHeads, rope), applyRopeMerged(k, numKeyValueHeads, rope)]
  const mask = { window, padding, sinks, segments }
  const out = attendMergedCausal(queries, keys, v, { numHeads, numKeyValueHeads }, scale, mask)
  const isRead = useCache || mapWeights !== undefined
  const cache = isRead ? layerCache(splitHeads(keys, numKeyValueHeads), splitHeads(v, numKeyValueHeads)) : undefined
  return { out, cache: cache as LayerCache } // read neither here nor by a caller with `useCache: false`
}

/** The composition: keys and values are concatenated with those of the cache. */
const attendConcatenated = (
  [q, k, v]: readonly [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D],
  past: LayerCache | undefined,
  options: CachedAttentionOptions & { readonly scale: number }
): CachedAttentionOutput => {
  const { numHeads, numKeyValueHeads, rope, scale, cacheType: _, mapWeights: __, ...mask } = options
  if (!past && hasKernel('AttentionBackward')) return attendFromStart([q, k, v], options)
  const [newKey, newValue] = [applyRope(splitHeads(k, numKeyValueHeads), rope), splitHeads(v, numKeyValueHeads)]
  const key = past ? tf.concat([usedKeys(past), newKey], 2) : newKey
  const value = past ? tf.concat([usedValues(past), newValue], 2) : newValue
  const causalFrom = past?.length ?? 0
  const out = mergeHeads(attend(applyRope(splitHeads(q, numHeads), rope), key, value, scale, { ...mask, causalFrom }))
  return { out, cache: layerCache(key, value) }
}

/** The output of a step with its attention weights, which are computed from the cache; the values are mixed again if the weights change. */
const withWeights = (
  attended: CachedAttentionOutput,
  q: tf.Tensor3D,
  { numHeads, rope, scale, mapWeights, ...mask }: CachedAttentionOptions & { readonly scale: number }
): CachedAttentionOutput => {
  if (!mapWeights) return attended
  const { cache } = attended
  const causalFrom = cache.length - q.shape[1]
  const rotated = applyRope(splitHeads(q, numHeads), rope)
  const computed = attentionWeights(rotated, usedKeys(cache), scale, { ...mask, causalFrom })
  const weights = mapWeights(computed)
  if (weights === computed) return { ...attended, weights }
  return { out: mergeHeads(weightedValues(weights, usedValues(cache))), cache, weights }
}

/** The output without its cache where `useCache` is false, by any path: gradient checkpointing computes one layer by two paths. */
export const withUsedCache = <O extends { readonly cache: LayerCache }>(
  output: O,
  { useCache = true }: Pick<CachedAttentionOptions, 'useCache'>
): O => {
  if (useCache) return output
  const { cache: _, ...rest } = output
  return rest as unknown as O
}

/**
 * Rotates queries `[B, L, H·K]` and keys `[B, L, G·K]` by their positions, appends keys and values to the cache, and attends
 * causally: `[B, L, H·K]`, and the cache grown by L positions. The new cache has its own tensors, which may share memory with those
 * of `past`; the owner of a cache disposes its tensors. Throws a `RangeError` for segments with a past: packed rows are not continued.
 */
export const attendCached = (
  qkv: readonly [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D],
  past: LayerCache | undefined,
  options: CachedAttentionOptions
): CachedAttentionOutput => {
  if (options.segments && past) throw new RangeError('attendCached: segments need whole rows; pass no cache with them')
  const [q, k, v] = qkv
  const { numHeads, numKeyValueHeads, window, sinks, segments } = options
  const { B, L, Dq, Dk } = expectAxes('attendCached', { q: [q, 'B L Dq'], k: [k, 'B L Dk'], v: [v, 'B L Dk'] }) as Record<'B' | 'L' | 'Dq' | 'Dk', number> // biome-ignore format: one line
  expectWhole('attendCached', 'numHeads', numHeads, 1, Math.max(1, Dq))
  expectWhole('attendCached', 'numKeyValueHeads', numKeyValueHeads, 1, numHeads)
  if (Dq % numHeads !== 0 || numHeads % numKeyValueHeads !== 0 || Dk * numHeads !== Dq * numKeyValueHeads)
    throw new ShapeError(
      `attendCached: widths ${Dq} and ${Dk} do not divide into ${numHeads} heads and ${numKeyValueHeads} key-value heads`
    )
  const width = Dq
  const scale = options.scale ?? (width / numHeads) ** -0.5
  if (!hasKernel('CachedAttention') || segments || [...qkv, sinks].some((x) => x && isTraced(x)))
    return withUsedCache(withWeights(attendConcatenated(qkv, past, { ...options, scale }), q, { ...options, scale }), options)
  const { inputs, attributes, cache } = appendToCache(past, [B, numKeyValueHeads, L, width / numHeads], options)
  const fixed = { numHeads, numKeyValueHeads, window, scale }
  const out = runKernel<tf.Tensor3D>('CachedAttention', { q, k, v, ...inputs, sinks }, { ...attributes, ...fixed })
  return withUsedCache(withWeights({ out, cache }, q, { ...options, scale }), options)
}
