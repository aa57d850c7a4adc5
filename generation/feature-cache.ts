import { createHash } from 'node:crypto'
import { tf } from '../lib/tf.js'
import type { InternVL } from '../models/internvl/internvl.js'

/** Tiles on the host: `data` holds `[T, C, H, W]`. */
export interface Tiles {
  readonly data: Float32Array
  readonly shape: readonly [T: number, C: number, H: number, W: number]
}

export interface FeatureCacheOptions {
  /** Bytes of features to keep at most; 256 MiB unless given. */
  readonly maxBytes?: number
  /** Tiles to keep at most; no limit unless given. */
  readonly maxEntries?: number
}

/** What the vision tower made of tiles, by what they show: a tile seen before is not encoded again. */
export interface FeatureCache {
  /** Features `[T, N, D]` of tiles; the caller's tensor. */
  readonly features: (tiles: Tiles) => tf.Tensor3D
  /** Tiles that went through the tower and tiles that did not need to, since the beginning; what is kept now, in tiles and bytes. */
  readonly counts: () => { readonly encoded: number; readonly reused: number; readonly entries: number; readonly bytes: number }
  readonly clear: () => void
}

/** Numbers by key, the ones longest unused going first. They lie in JavaScript's memory, so nobody has to dispose them. */
const recent = ({ maxBytes = 256 * 2 ** 20, maxEntries = Number.POSITIVE_INFINITY }: FeatureCacheOptions) => {
  const known = new Map<string, Float32Array>()
  let bytes = 0
  const drop = (key: string): void => {
    bytes -= known.get(key)?.byteLength ?? 0
    known.delete(key)
  }
  const put = (key: string, value: Float32Array): void => {
    drop(key)
    if (value.byteLength > maxBytes) return
    known.set(key, value)
    bytes += value.byteLength
    for (const oldest of known.keys()) {
      if (bytes <= maxBytes && known.size <= maxEntries) break
      drop(oldest)
    }
  }
  const get = (key: string): Float32Array | undefined => {
    const found = known.get(key)
    if (found) put(key, found)
    return found
  }
  const clear = (): void => {
    known.clear()
    bytes = 0
  }
  return { get, put, clear, size: () => ({ entries: known.size, bytes }) }
}

/** A name for the content of a tile: its size and its pixels. */
const contentKeys = ({ data, shape: [T, C, H, W] }: Tiles): readonly string[] =>
  Array.from({ length: T }, (_, i) => {
    const pixels = data.subarray(i * C * H * W, (i + 1) * C * H * W)
    const bytes = new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength)
    return `${H}x${W} ${createHash('sha256').update(bytes).digest('base64')}`
  })

/** A bounded store of a model's picture features. */
export const featureCache = (model: InternVL, options: FeatureCacheOptions = {}): FeatureCache => {
  const store = recent(options)
  let [encoded, reused, D] = [0, 0, 1]
  /** Features `[N, D]` of each of the tiles with these numbers. */
  const encode = ({ data, shape: [, ...tile] }: Tiles, numbers: readonly number[]) => {
    const size = tile.reduce((a, b) => a * b)
    const pixels = new Float32Array(numbers.length * size)
    for (const [place, i] of numbers.entries()) pixels.set(data.subarray(i * size, (i + 1) * size), place * size)
    const features = tf.tidy(() => model.imageFeatures(tf.tensor4d(pixels, [numbers.length, ...tile])))
    const each = features.size / numbers.length
    const all = features.dataSync<'float32'>()
    D = features.shape[2]
    features.dispose()
    encoded += numbers.length
    return numbers.map((_, place) => all.slice(place * each, (place + 1) * each))
  }
  const features = (tiles: Tiles): tf.Tensor3D => {
    const keys = contentKeys(tiles)
    const found = new Map(keys.flatMap((key) => (store.get(key) ? [[key, store.get(key)!] as const] : [])))
    const fresh = keys.flatMap((key, i) => (found.has(key) || keys.indexOf(key) < i ? [] : [i]))
    if (fresh.length > 0)
      for (const [place, values] of encode(tiles, fresh).entries()) {
        found.set(keys[fresh[place]!]!, values)
        store.put(keys[fresh[place]!]!, values)
      }
    reused += keys.length - fresh.length
    return tf.tidy(
      () => tf.stack(keys.map((key) => tf.tensor2d(found.get(key)!, [found.get(key)!.length / D, D]))) as tf.Tensor3D
    )
  }
  return { features, counts: () => ({ encoded, reused, ...store.size() }), clear: store.clear }
}

const shared = new WeakMap<InternVL, FeatureCache>()

/** The store that all conversations with a model share. */
export const featuresOf = (model: InternVL): FeatureCache => {
  const known = shared.get(model) ?? featureCache(model)
  shared.set(model, known)
  return known
}
