import { usesTensorflowOps } from '../../ops/kernel.js'
import { dequantizePacked, packedRowLength, type QuantizationFormat } from '../../quantization/formats.js'
import { expectAxes, expectWhole } from '../../shape.js'
import { tf } from '../../tf.js'
import type { RopeTables } from '../rope.js'

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

/** Axis of the positions in the keys of a cache: 2, or 3 where the keys are transposed, which attention of one query reads faster. */
export type KeyAxis = 2 | 3

/** Axis of the positions in the values of a cache. */
const valueAxis = 2

/**
 * Keys (already rotated) and values of one layer, `[B, G, capacity, K]`, with G key-value heads; transposed keys are
 * `[B, G, K, capacity]`. The first `length` positions belong to the cache. A cache is a value: later appends never change its
 * positions. A cache may append in place only if its own `length` equals the buffer's `usedLength`; otherwise the positions are copied.
 */
export interface LayerCache {
  readonly key: tf.Tensor4D
  readonly value: tf.Tensor4D
  readonly length: number
  readonly buffer: CacheBuffer
  /** Of another type than float32, the tensors are int32 (float32 for TensorFlow's ops) and the axis of K is packed as in a quantized weight. */
  readonly type: KVCacheType
  /** K. */
  readonly headDim: number
}

/** Properties of a cache that a cache of other positions shares. */
type CacheLayout = Pick<LayerCache, 'type' | 'headDim'>

/** The compiled kernels, whose packed tensors are int32, have the keys of a cache in bfloat16 transposed. */
const keyAxisOf = (type: KVCacheType, dtype: tf.DataType): KeyAxis => (type === 'bfloat16' && dtype === 'int32' ? 3 : 2)

/** A cache of keys and values `[B, G, L, K]`, float32 by default; the first `length` positions are used, all by default. */
export const layerCache = (
  key: tf.Tensor4D,
  value: tf.Tensor4D,
  length: number = value.shape[valueAxis],
  { type, headDim }: CacheLayout = { type: 'float32', headDim: key.shape[3] }
): LayerCache => {
  const keyShape = keyAxisOf(type, key.dtype) === 2 ? 'B G C K' : 'B G K C'
  const { C } = expectAxes('layerCache', { key: [key, keyShape], value: [value, 'B G C K'] }) as Record<'C', number>
  expectWhole('layerCache', 'length', length, 0, C)
  return { key, value, length, buffer: { usedLength: length }, type, headDim }
}

/**
 * A cache of `length` positions from the keys, and then the values, of several caches of one type. `f` receives these tensors and
 * the axis of their positions, and may change positions and rows of the batch.
 */
export const combineLayerCaches = (
  caches: readonly LayerCache[],
  f: (tensors: readonly tf.Tensor4D[], axis: KeyAxis) => tf.Tensor4D,
  length: number
): LayerCache => {
  const like = caches[0]!
  const key = tf.tidy(() => f(caches.map((cache) => cache.key), keyAxisOf(like.type, like.key.dtype))) // biome-ignore format: one line
  const value = tf.tidy(() => f(caches.map((cache) => cache.value), valueAxis)) // biome-ignore format: one line
  return layerCache(key, value, length, like)
}

/** `combineLayerCaches` of one cache. */
export const mapLayerCache = (cache: LayerCache, f: (t: tf.Tensor4D, axis: KeyAxis) => tf.Tensor4D, length: number): LayerCache =>
  combineLayerCaches([cache], ([t], axis) => f(t!, axis), length)

/** Positions `[from, from + length)` of keys or values; the same tensor if these are all positions. */
export const slicePositions = (t: tf.Tensor4D, axis: KeyAxis, from: number, length: number): tf.Tensor4D => {
  if (from === 0 && t.shape[axis] === length) return t
  const begin = t.shape.map((_, i) => (i === axis ? from : 0)) as tf.Tensor4D['shape']
  const size = t.shape.map((n, i) => (i === axis ? length : n)) as tf.Tensor4D['shape']
  return t.slice(begin, size)
}

/** Keys or values with zeros `before` and `after` their positions. */
export const padPositions = (t: tf.Tensor4D, axis: KeyAxis, [before, after]: readonly [number, number]): tf.Tensor4D => {
  const widths = t.shape.map((_, i) => (i === axis ? [before, after] : [0, 0]))
  return tf.pad(t, widths as [number, number][])
}

/**
 * The first `length` positions of a cache, in the same tensors. The caller gives up the longer cache: the positions after `length` are
 * free for the next append.
 */
export const cropCache = (cache: LayerCache, length: number): LayerCache => layerCache(cache.key, cache.value, length, cache)

/** The format of weights whose rows a packed cache has. */
const cacheFormats = { bfloat16: 'bf16', float16: 'f16', int8: 'int8' } as const satisfies Record<string, QuantizationFormat>

/** Keys or values `[B, G, L, K]` of a cache in float32. */
const inFloat32 = ({ type, headDim }: LayerCache, t: tf.Tensor4D): tf.Tensor4D =>
  type === 'float32' ? t : dequantizePacked(cacheFormats[type], t, headDim)

/** Keys of the used positions in float32, `[B, G, length, K]`. */
export const usedKeys = (cache: LayerCache): tf.Tensor4D => {
  const axis = keyAxisOf(cache.type, cache.key.dtype)
  const keys = slicePositions(cache.key, axis, 0, cache.length)
  return inFloat32(cache, axis === 3 ? keys.transpose([0, 1, 3, 2]) : keys)
}

/** Values of the used positions in float32, `[B, G, length, K]`. */
export const usedValues = (cache: LayerCache): tf.Tensor4D =>
  inFloat32(cache, slicePositions(cache.value, valueAxis, 0, cache.length))

/** Capacity for `length` positions and half as many more, a multiple of 64: growing by half keeps copies rare. */
export const grownCapacity = (length: number): number => Math.ceil((length * 3) / 2 / 64) * 64

/** Number of elements of a position of one head in a cache's tensors. */
const rowLength = (type: KVCacheType, headDim: number): number =>
  type === 'float32' ? headDim : packedRowLength(cacheFormats[type], headDim)

/** A copy of the first `length` positions of keys or values with room for `capacity`. */
const copyToCapacity = (t: tf.Tensor4D, axis: KeyAxis, length: number, capacity: number): tf.Tensor4D =>
  tf.tidy(() => padPositions(slicePositions(t, axis, 0, length), axis, [0, capacity - length]))

/** A copy of a cache with room for `capacity` positions, so that appends copy nothing. The caller still owns the given cache. */
export const reserveCapacity = (cache: LayerCache, capacity: number): LayerCache =>
  mapLayerCache(cache, (t, axis) => copyToCapacity(t, axis, cache.length, Math.max(capacity, cache.length)), cache.length)

/** The type of a new cache: TensorFlow's ops write no int8 and take bfloat16 for it, the compiled kernels no float16 and take float32. */
const supportedType = (type: KVCacheType = 'float32'): KVCacheType => {
  if (type === 'int8' && usesTensorflowOps()) return 'bfloat16'
  return type === 'float16' && !usesTensorflowOps() ? 'float32' : type
}

/** Type of the tensors of a packed cache. */
const packedDtype = (): 'float32' | 'int32' => (usesTensorflowOps() ? 'float32' : 'int32')

/** Rotary tables and mask of a step, and the type of a new cache. */
export interface CacheStep {
  readonly rope: RopeTables
  /** Additive mask `[B, 1, 1, Lk]`: 0 for tokens, a large negative number for padding. */
  readonly padding?: tf.Tensor4D | undefined
  /** Type of a new cache, float32 by default; a cache that exists keeps its own. Engines without the kernels have float32 alone. */
  readonly cacheType?: KVCacheType | undefined
}

/**
 * Prepares one step of a kernel that writes L new positions into the cache: its inputs and attributes, and the cache after the step.
 * The buffer of `past` is used again if it has free capacity and no other cache has appended to it. Without `past` the buffer is new,
 * with the given capacity.
 */
export const appendToCache = (
  past: LayerCache | undefined,
  [B, G, L, K]: readonly [number, number, number, number],
  { rope, padding, cacheType }: CacheStep,
  capacity = L
) => {
  const pastLength = past?.length ?? 0
  const type = past?.type ?? supportedType(cacheType)
  const dtype = past?.key.dtype ?? (type === 'float32' ? 'float32' : packedDtype())
  const length = pastLength + L
  const inPlace = past !== undefined && past.buffer.usedLength === pastLength && past.value.shape[valueAxis] >= length
  const bufferOf = (t: tf.Tensor4D | undefined, axis: KeyAxis): tf.Tensor4D => {
    if (t) return inPlace ? t.clone() : copyToCapacity(t, axis, pastLength, grownCapacity(length))
    const row = rowLength(type, K)
    const shape: tf.Tensor4D['shape'] = axis === 2 ? [B, G, capacity, row] : [B, G, row, capacity]
    return tf.fill(shape, 0, dtype)
  }
  const buffer = inPlace ? past.buffer : { usedLength: length }
  buffer.usedLength = length
  const [key, value] = [bufferOf(past?.key, keyAxisOf(type, dtype)), bufferOf(past?.value, valueAxis)]
  const cache: LayerCache = { key, value, length, buffer, type, headDim: K }
  const inputs = { cos: rope.cos, sin: rope.sin, mask: padding, key: cache.key, value: cache.value }
  return { inputs, attributes: { pastLength, cacheFormat: type }, cache }
}
