import { isTraced } from '../autograd/tape.js'
import { hasKernel, runKernel } from '../ops/kernel.js'
import { tf } from '../tf.js'
import { attend, mergeHeads, splitHeads, type Visibility } from './attention.js'
import { applyRope, type RopeTables } from './rope.js'

/**
 * Keys (already rotated) and values of one layer, `[B, G, room, K]`, G key-value heads. The first `length` positions count; what
 * stands behind them is room to grow. A value: what is appended later never changes the positions that it counts.
 */
export interface LayerCache {
  readonly key: tf.Tensor4D
  readonly value: tf.Tensor4D
  readonly length: number
  /** Positions of the memory that are written, by this cache or by one that grew from it: only who stands at their end may go on there. */
  readonly written: { length: number }
}

/** A cache of keys and values `[B, G, L, K]`, all of which count unless `length` says less. */
export const layerCache = (key: tf.Tensor4D, value: tf.Tensor4D, length: number = key.shape[2]): LayerCache => ({
  key,
  value,
  length,
  written: { length }
})

/** Keys or values of the positions that count, `[B, G, length, K]`. */
const counted = (t: tf.Tensor4D, length: number): tf.Tensor4D =>
  t.shape[2] === length ? t : t.slice([0, 0, 0, 0], [t.shape[0], t.shape[1], length, t.shape[3]])

/** Room for so many positions and half as many more, so that copying all of them stays rare. */
export const roomFor = (length: number): number => Math.ceil((length * 3) / 2 / 64) * 64

/** What new positions see beside the cache, and how many heads they have. */
export interface CachedAttention extends Pick<Visibility, 'window' | 'sinks' | 'padding' | 'segments'> {
  /** H, and G that divides it. */
  readonly heads: number
  readonly keyHeads: number
  readonly rope: RopeTables
  /** K^-½ by default. */
  readonly scale?: number | undefined
}

/** What of it stays the same from step to step. */
export type FixedAttention = Pick<CachedAttention, 'heads' | 'keyHeads' | 'window' | 'sinks' | 'scale'>

/** The plain way: all keys and values are copied behind one another. */
const attendAppended = (
  [q, k, v]: readonly [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D],
  past: LayerCache | undefined,
  { heads, keyHeads, rope, scale, ...see }: CachedAttention & { readonly scale: number }
) => {
  const [newKey, newValue] = [applyRope(splitHeads(k, keyHeads), rope), splitHeads(v, keyHeads)]
  const key = past ? tf.concat([counted(past.key, past.length), newKey], 2) : newKey
  const value = past ? tf.concat([counted(past.value, past.length), newValue], 2) : newValue
  const causalFrom = past?.length ?? 0
  const out = mergeHeads(attend(applyRope(splitHeads(q, heads), rope), key, value, scale, { ...see, causalFrom }))
  return { out, cache: layerCache(key, value) }
}

/** Memory for so many positions `[B, G, room, K]`, with those that a cache counts in it. */
const larger = (past: tf.Tensor4D, length: number, room: number): tf.Tensor4D =>
  tf.tidy(() => {
    const more: [number, number] = [0, room - length]
    return tf.pad4d(counted(past, length), [[0, 0], [0, 0], more, [0, 0]])
  })

/**
 * What a kernel is given beside new keys `[B, L, G·K]` and what is fixed: their angles, and memory where it writes them behind the
 * others; and the cache that it leaves. The memory is the past's where room is left and no one else has gone on there; without a past it
 * is new and has the given room.
 */
export const cachedStep = (
  past: LayerCache | undefined,
  [B, G, L, K]: readonly [number, number, number, number],
  { rope, padding }: Pick<CachedAttention, 'rope' | 'padding'>,
  room = L
) => {
  const before = past?.length ?? 0
  const length = before + L
  const inPlace = past !== undefined && past.written.length === before && past.key.shape[2] >= length
  const memory = (t: tf.Tensor4D | undefined): tf.Tensor4D => {
    if (!t) return tf.fill([B, G, room, K], 0)
    return inPlace ? t.clone() : larger(t, before, roomFor(length))
  }
  const written = inPlace ? past.written : { length }
  written.length = length
  const cache: LayerCache = { key: memory(past?.key), value: memory(past?.value), length, written }
  const inputs = { cos: rope.cos, sin: rope.sin, padding, key: cache.key, value: cache.value }
  return { inputs, attributes: { length: before }, cache }
}

/**
 * Rotates queries `[B, L, H·K]` and keys `[B, L, G·K]` by their positions, appends keys and values to the cache, and attends
 * causally: `[B, L, H·K]`, and the cache grown by L positions. The new cache has tensors of its own, which may share their memory
 * with those of `past`; both are disposed by their owners. Throws a `RangeError` for segments with a past: packed rows are not
 * continued.
 */
export const attendCached = (
  qkv: readonly [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D],
  past: LayerCache | undefined,
  options: CachedAttention
): { readonly out: tf.Tensor3D; readonly cache: LayerCache } => {
  if (options.segments && past) throw new RangeError('attendCached: segments are for whole rows, not for steps with a cache')
  const [q, k, v] = qkv
  const { heads, keyHeads, window, sinks, segments } = options
  const [B, L, width] = q.shape
  const scale = options.scale ?? (width / heads) ** -0.5
  if (!hasKernel('AttendCached') || segments || [...qkv, sinks].some((each) => each && isTraced(each)))
    return attendAppended(qkv, past, { ...options, scale })
  const { inputs, attributes, cache } = cachedStep(past, [B, keyHeads, L, width / heads], options)
  const fixed = { heads, keyHeads, window, scale }
  return { out: runKernel('AttendCached', { q, k, v, ...inputs, sinks }, { ...attributes, ...fixed }), cache }
}
