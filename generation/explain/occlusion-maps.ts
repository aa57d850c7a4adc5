import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import type { AnswerPart, ExplainedImage, ExplainedInput } from './explained-input.js'
import { imageTiles, medianColours, withImage } from './gradient-maps.js'
import { partScores } from './scores.js'

/** A rectangle of the image, as shares of its width and height. */
export interface Region {
  readonly left: number
  readonly top: number
  readonly right: number
  readonly bottom: number
}

/** The regions of tiles as shares of the image: those of the grid row by row, then the whole image for a thumbnail. */
export const tileRegions = ({ rows, columns, tiles }: ExplainedImage): readonly Region[] =>
  Array.from({ length: tiles }, (_, i) => {
    if (i >= rows * columns) return { left: 0, top: 0, right: 1, bottom: 1 }
    const [row, column] = [Math.floor(i / columns), i % columns]
    return { left: column / columns, top: row / rows, right: (column + 1) / columns, bottom: (row + 1) / rows }
  })

/** The share of the interval from `from` to `to` that each of `n` equal cells from `start` to `end` has inside, from 0 to 1. */
const covered = (n: number, [start, end]: readonly [number, number], [from, to]: readonly [number, number]): readonly number[] =>
  Array.from({ length: n }, (_, i) => {
    const size = (end - start) / n
    const overlap = Math.min(to, start + (i + 1) * size) - Math.max(from, start + i * size)
    return Math.max(0, overlap) / size
  })

/** Whether a tile shows a part of a region. */
const shows = (tile: Region, region: Region): boolean =>
  region.left < tile.right && region.right > tile.left && region.top < tile.bottom && region.bottom > tile.top

/** A region of the image on one of its tiles. */
interface Covered {
  readonly region: Region
  readonly tile: number
}

/** Masks `[n, 1, h, w]` of regions on tiles: the share of each pixel that lies inside. */
export const regionMasks = (covers: readonly Covered[], tiles: readonly Region[], h: number, w: number): tf.Tensor4D =>
  tf.tidy(() => {
    const n = covers.length
    const y = covers.map(({ region, tile }) => covered(h, [tiles[tile]!.top, tiles[tile]!.bottom], [region.top, region.bottom]))
    const x = covers.map(({ region, tile }) => covered(w, [tiles[tile]!.left, tiles[tile]!.right], [region.left, region.right]))
    const [rows, columns] = [tf.tensor3d(y.flat(), [n, h, 1]), tf.tensor3d(x.flat(), [n, 1, w])]
    return tf.matMul(rows, columns).reshape([n, 1, h, w])
  })

/** The regions of a grid of `rows x columns` cells, row by row. */
export const gridRegions = (rows: number, columns: number): readonly Region[] =>
  Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns]
    return { left: column / columns, top: row / rows, right: (column + 1) / columns, bottom: (row + 1) / rows }
  })

/**
 * Image features `[n·T, N, D]` of the explained image with each of n regions covered by its tiles' median colours; `features` are those of
 * the whole image. Only tiles that show a region are encoded again.
 */
export const featuresWithout = (
  model: InternVL,
  input: ExplainedInput,
  features: tf.Tensor3D,
  regions: readonly Region[]
): tf.Tensor3D =>
  tf.tidy(() => {
    const pixels = imageTiles(input)
    const [T, , h, w] = pixels.shape
    const tiles = tileRegions(input.image)
    const covers = regions.flatMap((region) => tiles.flatMap((shown, tile) => (shows(shown, region) ? [{ region, tile }] : [])))
    const index = tf.tensor1d(
      covers.map(({ tile }) => tile),
      'int32'
    )
    const [whole, colours] = [pixels.gather(index), medianColours(pixels).gather(index)]
    const encoded = model.imageFeatures(whole.add<tf.Tensor4D>(colours.sub(whole).mul(regionMasks(covers, tiles, h, w))))
    let next = T
    const rows = regions.flatMap((region) => tiles.map((shown, tile) => (shows(shown, region) ? next++ : tile)))
    return tf.concat([features, encoded]).gather(tf.tensor1d(rows, 'int32'))
  })

export interface OcclusionOptions {
  /** Cells along the longer side of the image. */
  readonly cells: number
  /** Images of one forward. */
  readonly batchSize: number
  /** Called before each forward with the images done and in total; may throw to stop. */
  readonly onProgress?: ((done: number, total: number) => void | Promise<void>) | undefined
}

/**
 * Occlusion: how much the log-probability of each part falls where a cell of the image has the median colour of its tile, `[rows, columns]`
 * for each part. Source: Zeiler and Fergus 2014.
 */
export const occlusionMaps = async (
  model: InternVL,
  input: ExplainedInput,
  parts: readonly AnswerPart[],
  { cells, batchSize, onProgress }: OcclusionOptions
): Promise<readonly tf.Tensor2D[]> => {
  const { width, height } = input.image
  const longest = Math.max(width, height)
  const [rows, columns] = [height, width].map((side) => Math.max(1, Math.round((cells * side) / longest))) as [number, number]
  const regions = gridRegions(rows, columns)
  const features = tf.tidy(() => model.imageFeatures(input.pixelValues))
  const [, N, D] = features.shape
  const imageFeatures = features.slice([input.image.firstTile, 0, 0], [input.image.tiles, N, D])
  const scores: tf.Tensor2D[] = []
  try {
    scores.push(tf.tidy(() => partScores(model, input, parts, features, 1)))
    for (let start = 0; start < regions.length; start += batchSize) {
      await onProgress?.(start, regions.length)
      const batch = regions.slice(start, start + batchSize)
      scores.push(
        tf.tidy(() => {
          const variants = withImage(features, input, featuresWithout(model, input, imageFeatures, batch), batch.length)
          return partScores(model, input, parts, variants, batch.length)
        })
      )
    }
    await onProgress?.(regions.length, regions.length)
    return tf.tidy(() => {
      const [whole, ...covered] = scores as [tf.Tensor2D, ...tf.Tensor2D[]]
      const falls = whole.sub(tf.concat(covered)).transpose() // [parts, regions]
      return parts.map((_, i) => falls.slice([i, 0], [1, regions.length]).reshape<tf.Tensor2D>([rows, columns]))
    })
  } finally {
    tf.dispose([features, imageFeatures, ...scores])
  }
}
