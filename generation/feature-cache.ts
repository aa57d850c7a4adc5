import { createHash } from 'node:crypto'
import { tf } from '../lib/tf.js'
import type { InternVL } from '../models/internvl/internvl.js'

/** Tiles in JavaScript memory: `data` holds `[T, C, H, W]`. */
export interface Tiles {
  readonly data: Float32Array
  readonly shape: readonly [T: number, C: number, H: number, W: number]
}

export interface FeatureCacheOptions {
  /** Maximum bytes of features; 256 MiB by default. */
  readonly maxBytes?: number
  /** Maximum number of tiles; no limit by default. */
  readonly maxEntries?: number
}

/** Image features of one model by the content of tiles: a tile that is cached is not encoded again. */
export interface FeatureCache {
  /** The model whose features are cached. */
  readonly model: InternVL
  /** Image features `[T, N, D]` of tiles. The caller disposes the tensor. */
  readonly features: (tiles: Tiles) => tf.Tensor3D
  /** Tile features of a model with a router: each tile compressed and not compressed (see `packTileFeatures`). The caller disposes the tensor. */
  readonly tileFeatures: (tiles: Tiles) => tf.Tensor2D
  /** Numbers of tiles encoded and reused since the beginning; tiles and bytes cached now. */
  readonly counts: () => { readonly encoded: number; readonly reused: number; readonly entries: number; readonly bytes: number }
  readonly clear: () => void
}

/** Least-recently-used cache of arrays in JavaScript memory; nothing needs to be disposed. */
const lruCache = ({ maxBytes = 256 * 2 ** 20, maxEntries = Number.POSITIVE_INFINITY }: FeatureCacheOptions) => {
  const entries = new Map<string, Float32Array>()
  let bytes = 0
  const drop = (key: string): void => {
    bytes -= entries.get(key)?.byteLength ?? 0
    entries.delete(key)
  }
  const put = (key: string, value: Float32Array): void => {
    drop(key)
    if (value.byteLength > maxBytes) return
    entries.set(key, value)
    bytes += value.byteLength
    for (const oldest of entries.keys()) {
      if (bytes <= maxBytes && entries.size <= maxEntries) break
      drop(oldest)
    }
  }
  const get = (key: string): Float32Array | undefined => {
    const found = entries.get(key)
    if (found) put(key, found)
    return found
  }
  const clear = (): void => {
    entries.clear()
    bytes = 0
  }
  return { get, put, clear, size: () => ({ entries: entries.size, bytes }) }
}

/** A key for the content of each tile: its size and the SHA-256 of its pixels. */
export const contentKeys = ({ data, shape: [T, C, H, W] }: Tiles): readonly string[] =>
  Array.from({ length: T }, (_, i) => {
    const pixels = data.subarray(i * C * H * W, (i + 1) * C * H * W)
    const bytes = new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength)
    return `${H}x${W} ${createHash('sha256').update(bytes).digest('base64')}`
  })

/** A bounded cache of a model's image features. */
export const featureCache = (model: InternVL, options: FeatureCacheOptions = {}): FeatureCache => {
  const cache = lruCache(options)
  let [encoded, reused, D] = [0, 0, 1]
  const { flash } = model
  /** Features of tiles as the cache holds them: `[T, N, D]`, or the tile features of a model with a router. */
  const compute = (pixels: tf.Tensor4D): tf.Tensor3D | tf.Tensor2D => (flash ? flash(pixels) : model.imageFeatures(pixels))
  /** Features of each of the tiles with these indices. */
  const encode = ({ data, shape: [, ...tile] }: Tiles, indices: readonly number[]): readonly Float32Array[] => {
    const size = tile.reduce((a, b) => a * b)
    const pixels = new Float32Array(indices.length * size)
    for (const [position, i] of indices.entries()) pixels.set(data.subarray(i * size, (i + 1) * size), position * size)
    const features = tf.tidy(() => compute(tf.tensor4d(pixels, [indices.length, ...tile])))
    const sizePerTile = features.size / indices.length
    const values = features.dataSync<'float32'>()
    D = flash?.hiddenSize ?? features.shape[2]!
    features.dispose()
    encoded += indices.length
    return indices.map((_, position) => values.slice(position * sizePerTile, (position + 1) * sizePerTile))
  }
  /** Features of each tile, from the cache or encoded now. */
  const lookUp = (tiles: Tiles): readonly Float32Array[] => {
    const keys = contentKeys(tiles)
    const found = new Map(keys.flatMap((key) => (cache.get(key) ? [[key, cache.get(key)!] as const] : [])))
    const missing = keys.flatMap((key, i) => (found.has(key) || keys.indexOf(key) < i ? [] : [i]))
    if (missing.length > 0)
      for (const [position, values] of encode(tiles, missing).entries()) {
        found.set(keys[missing[position]!]!, values)
        cache.put(keys[missing[position]!]!, values)
      }
    reused += keys.length - missing.length
    return keys.map((key) => found.get(key)!)
  }
  const wholeFeatures = (row: Float32Array): Float32Array => (flash ? row.subarray(0, ((row.length - 1) * 4) / 5) : row)
  const features = (tiles: Tiles): tf.Tensor3D => {
    const rows = lookUp(tiles).map(wholeFeatures)
    return tf.tidy(() => tf.stack(rows.map((row) => tf.tensor2d(row, [row.length / D, D]))) as tf.Tensor3D)
  }
  const tileFeatures = (tiles: Tiles): tf.Tensor2D => {
    if (!flash) throw new RangeError('tileFeatures: the model has no router; use features')
    return tf.tidy(() => tf.stack(lookUp(tiles).map((row) => tf.tensor1d(row))) as tf.Tensor2D)
  }
  return { model, features, tileFeatures, counts: () => ({ encoded, reused, ...cache.size() }), clear: cache.clear }
}
