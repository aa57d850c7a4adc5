import { isTraced } from '../tape.js'
import { tf } from '../tf.js'
import { attend, mergeHeads, splitHeads, type Visibility } from './attention.js'
import { fused } from './fused.js'
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
const roomFor = (length: number): number => Math.ceil((length * 3) / 2 / 64) * 64

/** What new positions see beside the cache, and how many heads they have. */
export interface CachedAttention extends Pick<Visibility, 'window' | 'sinks' | 'padding' | 'segments'> {
  /** H, and G that divides it. */
  readonly heads: number
  readonly keyHeads: number
  readonly rope: RopeTables
  /** K^-½ by default. */
  readonly scale?: number | undefined
}

/** The plain way: all keys and values are copied behind one another. */
const attendAppended = (
  [q, k, v]: readonly [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D],
  past: LayerCache | undefined,
  { heads, keyHeads, rope, scale, ...see }: CachedAttention & { readonly scale: number }
): readonly [tf.Tensor3D, tf.Tensor4D, tf.Tensor4D] => {
  const [newKey, newValue] = [applyRope(splitHeads(k, keyHeads), rope), splitHeads(v, keyHeads)]
  const key = past ? tf.concat([counted(past.key, past.length), newKey], 2) : newKey
  const value = past ? tf.concat([counted(past.value, past.length), newValue], 2) : newValue
  const causalFrom = past?.length ?? 0
  return [mergeHeads(attend(applyRope(splitHeads(q, heads), rope), key, value, scale, { ...see, causalFrom })), key, value]
}

/** Where L new positions go: behind the others where memory is left and no one else has gone on there, else to larger memory. */
const placeFor = (past: LayerCache | undefined, L: number) => {
  const [before, length] = [past?.length ?? 0, (past?.length ?? 0) + L]
  const inPlace = past !== undefined && past.written.length === before && past.key.shape[2] >= length
  return { before, length, inPlace, room: inPlace ? past.key.shape[2] : past ? roomFor(length) : length }
}

/** What a kernel needs to attend after a cache, beside what it attends with; and the cache that it leaves. */
export const cachedStep = (past: LayerCache | undefined, L: number, options: CachedAttention) => {
  const { heads, keyHeads, rope, window, padding, sinks } = options
  const { before, length, inPlace, room } = placeFor(past, L)
  const grown = (key: tf.Tensor4D, value: tf.Tensor4D): LayerCache => {
    const shared = inPlace && key.shape[2] === room
    if (shared) past!.written.length = length
    return { key, value, length, written: shared ? past!.written : { length } }
  }
  return {
    inputs: { cos: rope.cos, sin: rope.sin, key: past?.key, value: past?.value, padding, sinks },
    attributes: { heads, keyHeads, window, length: before, room, inPlace },
    grown
  }
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
  const scale = options.scale ?? (q.shape[2] / options.heads) ** -0.5
  const { inputs, attributes, grown } = cachedStep(past, q.shape[1], options)
  const apart = () => attendAppended(qkv, past, { ...options, scale })
  const [out, key, value] =
    options.segments || qkv.some(isTraced)
      ? apart()
      : fused('AttendCached', { q, k, v, ...inputs }, { ...attributes, scale }, apart)
  return { out, cache: grown(key, value) }
}
