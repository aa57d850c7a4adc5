import { isTraced } from '../autograd/tape.js'
import { hasKernel, runKernel, usesTensorflowOps } from '../ops/kernel.js'
import { dequantizePacked, packedRowLength, type QuantizationFormat } from '../quantization/formats.js'
import { expectAxes, expectWhole, ShapeError } from '../shape.js'
import { tf } from '../tf.js'
import {
  type AttentionMaskOptions,
  attend,
  attendMergedCausal,
  attentionWeights,
  mergeHeads,
  splitHeads,
  weightedValues
} from './attention.js'
import { applyRope, applyRopeMerged, type RopeTables } from './rope.js'

/**
 * The shared state of a memory buffer that several caches point to. Mutable on purpose: a cache that appends in place must tell the
 * other caches of the same buffer that the free positions are taken. `appendToCache` is the only function that writes it.
 */
export interface CacheBuffer {
  /** Number of positions of the buffer that any cache uses. */
  usedLength: number
}

/** Types of the keys and values in a cache. int8 has a scale for each 32 numbers, see lib/quantization/formats.ts. float16 is for a GPU. */
export const kvCacheTypes = ['float32', 'bfloat16', 'float16', 'int8'] as const
export type KVCacheType = (typeof kvCacheTypes)[number]

/**
 * Keys (already rotated) and values of one layer, `[B, G, capacity, K]`, with G key-value heads. The first `length` positions belong
 * to the cache. A cache is a value: later appends never change its positions. A cache may append in place only if its own `length`
 * equals the buffer's `usedLength`; otherwise the positions are copied.
 */
export interface LayerCache {
  readonly key: tf.Tensor4D
  readonly value: tf.Tensor4D
  readonly length: number
  readonly buffer: CacheBuffer
  /** Of another type than float32, the tensors are int32 (float32 for TensorFlow's ops) and their last axis is packed as in a quantized weight. */
  readonly type: KVCacheType
  /** K. */
  readonly headDim: number
}

/** A cache of keys and values `[B, G, L, K]`, float32 by default; the first `length` positions are used, all by default. */
export const layerCache = (
  key: tf.Tensor4D,
  value: tf.Tensor4D,
  length: number = key.shape[2],
  { type, headDim }: Pick<LayerCache, 'type' | 'headDim'> = { type: 'float32', headDim: key.shape[3] }
): LayerCache => {
  const { C } = expectAxes('layerCache', { key: [key, 'B G C K'], value: [value, 'B G C K'] }) as Record<'C', number>
  expectWhole('layerCache', 'length', length, 0, C)
  return { key, value, length, buffer: { usedLength: length }, type, headDim }
}

/** A cache of `length` positions whose keys and values are those of `cache` after `f`, which keeps the last axis. */
export const mapLayerCache = (cache: LayerCache, f: (t: tf.Tensor4D) => tf.Tensor4D, length: number): LayerCache => {
  const [key, value] = [tf.tidy(() => f(cache.key)), tf.tidy(() => f(cache.value))]
  return layerCache(key, value, length, cache)
}

/**
 * The first `length` positions of a cache, in the same tensors. The caller gives up the longer cache: the positions after `length` are
 * free for the next append.
 */
export const cropCache = (cache: LayerCache, length: number): LayerCache => layerCache(cache.key, cache.value, length, cache)

/** Keys or values of the used positions, `[B, G, length, K]`. */
const usedPositions = (t: tf.Tensor4D, length: number): tf.Tensor4D =>
  t.shape[2] === length ? t : t.slice([0, 0, 0, 0], [t.shape[0], t.shape[1], length, t.shape[3]])

/** The format of weights whose rows a packed cache has. */
const cacheFormats = { bfloat16: 'bf16', float16: 'f16', int8: 'int8' } as const satisfies Record<string, QuantizationFormat>

/** Keys or values of the used positions in float32, `[B, G, length, K]`. */
const usedInFloat32 = ({ length, type, headDim }: LayerCache, t: tf.Tensor4D): tf.Tensor4D => {
  const used = usedPositions(t, length)
  return type === 'float32' ? used : dequantizePacked(cacheFormats[type], used, headDim)
}

/** Capacity for `length` positions and half as many more, a multiple of 64: growing by half keeps copies rare. */
export const grownCapacity = (length: number): number => Math.ceil((length * 3) / 2 / 64) * 64

/** Number of elements of the last axis of a cache's tensors. */
const rowLength = (type: KVCacheType, headDim: number): number =>
  type === 'float32' ? headDim : packedRowLength(cacheFormats[type], headDim)

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
export interface CachedAttentionOptions extends AttentionOptions, Pick<AttentionMaskOptions, 'padding' | 'segments'> {
  readonly rope: RopeTables
  /** Whether the cache after the step is needed, true by default; with false it may be absent, which saves copies of keys and values. */
  readonly useCache?: boolean | undefined
  /** Type of a new cache, float32 by default; a cache that exists keeps its own. Engines without the kernels have float32 alone. */
  readonly cacheType?: KVCacheType | undefined
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
  const key = past ? tf.concat([usedInFloat32(past, past.key), newKey], 2) : newKey
  const value = past ? tf.concat([usedInFloat32(past, past.value), newValue], 2) : newValue
  const causalFrom = past?.length ?? 0
  const out = mergeHeads(attend(applyRope(splitHeads(q, numHeads), rope), key, value, scale, { ...mask, causalFrom }))
  return { out, cache: layerCache(key, value) }
}

/** A copy of the used positions in a buffer `[B, G, capacity, K]`. */
const copyToCapacity = (t: tf.Tensor4D, length: number, capacity: number): tf.Tensor4D =>
  tf.tidy(() => {
    const free: [number, number] = [0, capacity - length]
    return tf.pad4d(usedPositions(t, length), [[0, 0], [0, 0], free, [0, 0]])
  })

/** A copy of a cache with room for `capacity` positions, so that appends copy nothing. The caller still owns the given cache. */
export const reserveCapacity = (cache: LayerCache, capacity: number): LayerCache =>
  mapLayerCache(cache, (t) => copyToCapacity(t, cache.length, Math.max(capacity, cache.length)), cache.length)

/** The type of a new cache: TensorFlow's ops write no int8 and take bfloat16 for it, the compiled kernels no float16 and take float32. */
const supportedType = (type: KVCacheType = 'float32'): KVCacheType => {
  if (type === 'int8' && usesTensorflowOps()) return 'bfloat16'
  return type === 'float16' && !usesTensorflowOps() ? 'float32' : type
}

/** Type of the tensors of a packed cache. */
const packedDtype = (): 'float32' | 'int32' => (usesTensorflowOps() ? 'float32' : 'int32')

/**
 * Prepares one step of a kernel that writes L new positions into the cache: its inputs and attributes, and the cache after the step.
 * The buffer of `past` is used again if it has free capacity and no other cache has appended to it. Without `past` the buffer is new,
 * with the given capacity.
 */
export const appendToCache = (
  past: LayerCache | undefined,
  [B, G, L, K]: readonly [number, number, number, number],
  { rope, padding, cacheType }: Pick<CachedAttentionOptions, 'rope' | 'padding' | 'cacheType'>,
  capacity = L
) => {
  const pastLength = past?.length ?? 0
  const type = past?.type ?? supportedType(cacheType)
  const length = pastLength + L
  const inPlace = past !== undefined && past.buffer.usedLength === pastLength && past.key.shape[2] >= length
  const bufferOf = (t: tf.Tensor4D | undefined): tf.Tensor4D => {
    if (!t) return tf.fill([B, G, capacity, rowLength(type, K)], 0, type === 'float32' ? 'float32' : packedDtype())
    return inPlace ? t.clone() : copyToCapacity(t, pastLength, grownCapacity(length))
  }
  const buffer = inPlace ? past.buffer : { usedLength: length }
  buffer.usedLength = length
  const cache: LayerCache = { key: bufferOf(past?.key), value: bufferOf(past?.value), length, buffer, type, headDim: K }
  const inputs = { cos: rope.cos, sin: rope.sin, mask: padding, key: cache.key, value: cache.value }
  return { inputs, attributes: { pastLength, cacheFormat: type }, cache }
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
  const computed = attentionWeights(rotated, usedInFloat32(cache, cache.key), scale, { ...mask, causalFrom })
  const weights = mapWeights(computed)
  if (weights === computed) return { ...attended, weights }
  return { out: mergeHeads(weightedValues(weights, usedInFloat32(cache, cache.value))), cache, weights }
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
