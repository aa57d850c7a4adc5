import { ShapeError } from '../../../lib/shape.js'
import { tf } from '../../../lib/tf.js'

/** Thresholds of the router on the probability p that a quarter of a tile's tokens suffices. */
export interface FlashThresholds {
  /** A tile is compressed only if its p is above this quantile of the p of all tiles of the request; from 0 to 1. */
  readonly relativeThreshold: number
  /** A tile is compressed only if its p is at least this; from 0 to 1. */
  readonly absoluteThreshold: number
}

/** Encodes tiles `[T, C, H, W]`, compressed and not compressed; returns tile features, see `packTileFeatures`. */
export interface FlashEncoder extends FlashThresholds {
  (pixelValues: tf.Tensor4D): tf.Tensor2D
  /** Whether the router is on unless an option says otherwise. */
  readonly mode: boolean
  /** Size of one image feature, D. */
  readonly hiddenSize: number
}

/**
 * Tile features: a row for each tile with its features `[N, D]`, its compressed features `[N / 4, D]` and the router's p:
 * `[T, (N + N / 4) · D + 1]`. Both stay available, because whether a tile is compressed depends on the other tiles of a request.
 */
export const packTileFeatures = (whole: tf.Tensor3D, quarter: tf.Tensor3D, scores: tf.Tensor1D): tf.Tensor2D => {
  const T = scores.shape[0]
  return tf.concat(
    [whole.reshape<tf.Tensor2D>([T, -1]), quarter.reshape<tf.Tensor2D>([T, -1]), scores.reshape<tf.Tensor2D>([T, 1])],
    1
  )
}

/** Number of image tokens N of a tile that is not compressed. */
export const tokensOfRow = ({ shape: [, columns] }: tf.Tensor2D, D: number): number => (((columns - 1) / D) * 4) / 5

/** The router's p of each tile. */
export const scoresOf = (tiles: tf.Tensor2D): readonly number[] => {
  const [T, columns] = tiles.shape
  const column = tf.tidy(() => tiles.slice([0, columns - 1], [T, 1]))
  const scores = Array.from(column.dataSync())
  column.dispose()
  return scores
}

/** The image features that remain, `[1, n, D]`: of each tile all N or, where it is compressed, N / 4. */
export const selectFeatures = (tiles: tf.Tensor2D, D: number, compressed: readonly boolean[]): tf.Tensor3D => {
  const [N, T] = [tokensOfRow(tiles, D), tiles.shape[0]]
  if (T !== compressed.length) throw new ShapeError(`selectFeatures: ${T} tiles, ${compressed.length} entries of compressed`)
  return tf.tidy(() => {
    const rows = tiles.slice([0, 0], [T, (N + N / 4) * D]).reshape<tf.Tensor2D>([-1, D])
    const indices = compressed.flatMap((isCompressed, tile) => {
      const start = tile * (N + N / 4)
      return Array.from({ length: isCompressed ? N / 4 : N }, (_, i) => start + (isCompressed ? N : 0) + i)
    })
    return rows.gather(tf.tensor1d(indices, 'int32')).reshape<tf.Tensor3D>([1, indices.length, D])
  })
}

const f32 = Math.fround

/**
 * The quantile q of float32 values, with linear interpolation by a fused multiply-add in float32.
 * Source: `torch.quantile` (torch 2.15).
 */
export const quantile = (values: readonly number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const rank = f32(q) * (values.length - 1)
  const [low, high] = [sorted[Math.floor(rank)]!, sorted[Math.ceil(rank)]!]
  const weight = f32(rank - Math.floor(rank))
  const difference = f32(high - low)
  return weight < 0.5 ? f32(low + weight * difference) : f32(high - difference * f32(1 - weight))
}

/** Whether each tile of one request is compressed, by the p of all. */
export const compressedTiles = (
  scores: readonly number[],
  { relativeThreshold, absoluteThreshold }: FlashThresholds
): readonly boolean[] => {
  if (scores.length === 0) return []
  const least = quantile(scores, relativeThreshold)
  return scores.map((p) => p > least && p >= f32(absoluteThreshold))
}

/**
 * The ids of a prompt after the router: of the N image tokens of a compressed tile only the first quarter. Throws a `ShapeError`
 * if the prompt has not N image tokens for each tile.
 */
export const keptIds = (
  ids: readonly number[],
  imageTokenId: number,
  N: number,
  compressed: readonly boolean[]
): readonly number[] => {
  const tokens = ids.filter((id) => id === imageTokenId).length
  if (tokens !== N * compressed.length)
    throw new ShapeError(
      `merge: ${tokens} image tokens in inputIds, ${N * compressed.length} image features (${compressed.length} x ${N})`
    )
  let index = 0
  return ids.filter((id) => {
    if (id !== imageTokenId) return true
    const [tile, i] = [Math.floor(index / N), index % N]
    index++
    return !compressed[tile] || i < N / 4
  })
}
