import { ShapeError } from '../../shape.js'
import { computeTypes } from './compute-type.js'
import { attendOnDevice, mergeOnDevice, ropeOnDevice, splitOnDevice } from './device-attention.js'
import type { DeviceOps, DeviceTensor, DeviceType } from './device-ops.js'

/** Types of numbers in a cache; a 16-bit cache has two numbers in a float32, `[B, G, C, ⌈K/2⌉]`. */
export type CacheType = 'float32' | 'bfloat16' | 'float16'

/** The type of products over a cache: its own, but float16 for a 16-bit cache where attention is in float16. */
const attentionType = (type: CacheType): CacheType =>
  type !== 'float32' && computeTypes().attention === 'float16' ? 'float16' : type

/** Keys or values `[B, G, C, …]` of a cache, as `[B, G, C, K']` in their type: a view of the same memory, K' is K or one more. */
const cacheView = (ops: DeviceOps, cache: DeviceTensor, type: CacheType): DeviceTensor => {
  const [B, G, C, width] = cache.shape as [number, number, number, number]
  return type === 'float32' ? cache : ops.reshape(ops.bitcast(cache, type), [B, G, C, 2 * width])
}

/** Numbers of the last axis, filled with zeros up to `width`. */
const widened = (ops: DeviceOps, x: DeviceTensor, width: number): DeviceTensor => {
  const free = width - x.shape.at(-1)!
  if (free === 0) return x
  const shape = [...x.shape.slice(0, -1), free]
  const zeros = ops.constant(`float32 zeros ${shape}`, () => [shape, new Float32Array(shape.reduce((a, b) => a * b, 1))])
  return ops.concat([x, zeros], x.shape.length - 1)
}

/** Row numbers in `[B·G·C]` of positions `[past, past + L)` of every head. */
const rowNumbers = (ops: DeviceOps, [heads, C, past, L]: readonly [number, number, number, number]): DeviceTensor =>
  ops.constant(`rows ${heads} ${C} ${past} ${L}`, () => [
    [heads * L],
    Int32Array.from({ length: heads * L }, (_, i) => Math.floor(i / L) * C + past + (i % L))
  ])

/** Writes `[B, G, L, K]` in float32 into positions from `past` on of a cache view, in place. */
const writePositions = (ops: DeviceOps, view: DeviceTensor, x: DeviceTensor, past: number, type: DeviceType): void => {
  const [B, G, C, width] = view.shape as [number, number, number, number]
  const L = x.shape[2]!
  const rows = ops.cast(ops.reshape(widened(ops, x, width), [B * G * L, width]), type)
  ops.updateRows(ops.reshape(view, [B * G * C, width]), rowNumbers(ops, [B * G, C, past, L]), rows)
}

export interface CachedAttentionInputs {
  readonly q: DeviceTensor
  readonly k: DeviceTensor
  readonly v: DeviceTensor
  readonly cos: DeviceTensor
  readonly sin: DeviceTensor
  readonly mask?: DeviceTensor | undefined
  readonly key: DeviceTensor
  readonly value: DeviceTensor
  readonly sinks?: DeviceTensor | undefined
}

export interface CachedAttentionAttributes {
  readonly pastLength: number
  readonly cacheFormat?: CacheType
  readonly numHeads: number
  readonly numKeyValueHeads: number
  readonly window?: number | undefined
  readonly scale: number
}

/**
 * Rotates queries `[B, L, H·K]` and keys `[B, L, G·K]`, writes keys and values into the cache in place, and attends causally over the cache:
 * `[B, L, H·K]`. Throws a `ShapeError` if the cache has no room.
 */
export const cachedAttention = (
  ops: DeviceOps,
  { q, k, v, cos, sin, mask: padding, key, value, sinks }: CachedAttentionInputs,
  { pastLength, cacheFormat = 'float32', numHeads: H, numKeyValueHeads: G, window = 0, scale }: CachedAttentionAttributes
): DeviceTensor => {
  const [, L, width] = q.shape as [number, number, number]
  const [K, length, C] = [width / H, pastLength + L, key.shape[2]!]
  if (length > C) throw new ShapeError(`CachedAttention: ${length} positions do not fit into a cache of ${C}`)
  const [keys, values] = [cacheView(ops, key, cacheFormat), cacheView(ops, value, cacheFormat)]
  writePositions(ops, keys, ropeOnDevice(ops, splitOnDevice(ops, k, G), cos, sin), pastLength, cacheFormat)
  writePositions(ops, values, splitOnDevice(ops, v, G), pastLength, cacheFormat)
  const queries = widened(ops, ropeOnDevice(ops, splitOnDevice(ops, q, H), cos, sin), keys.shape[3]!)
  const [typedKeys, typedValues] = [keys, values].map((t) => ops.cast(t, attentionType(cacheFormat))) as [
    DeviceTensor,
    DeviceTensor
  ]
  const out = attendOnDevice(ops, queries, typedKeys, typedValues, scale, { length, causal: true, window, padding, sinks })
  return mergeOnDevice(ops, ops.lastAxis(out, 0, K))
}
