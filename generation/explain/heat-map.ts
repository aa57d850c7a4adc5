import { tf } from '../../lib/tf.js'
import type { ExplainedImage } from './explained-input.js'

/** Values `[h, w]` spread over `height x width` pixels: bilinear between the centres of the cells, with the sum of the values. */
const spread = (values: tf.Tensor2D, height: number, width: number): tf.Tensor2D =>
  tf.tidy(() => {
    const [h, w] = values.shape
    const resized = tf.image.resizeBilinear(values.reshape<tf.Tensor3D>([h, w, 1]), [height, width], false, true)
    const map = resized.reshape<tf.Tensor2D>([height, width])
    const [before, after] = [values.sum(), map.sum()]
    return map.mul(before.divNoNan(after))
  })

/**
 * The map `[height, width]` over the original image of values `[T, h, w]` of its tiles: the tiles of the grid as one map, and the thumbnail
 * over the whole image, added; its sum is the sum of the values.
 */
export const mapOverImage = (values: tf.Tensor3D, { rows, columns, width, height }: ExplainedImage): tf.Tensor2D =>
  tf.tidy(() => {
    const [T, h, w] = values.shape
    const n = rows * columns
    const grid = values
      .slice([0, 0, 0], [n, h, w])
      .reshape([rows, columns, h, w])
      .transpose([0, 2, 1, 3])
      .reshape<tf.Tensor2D>([rows * h, columns * w])
    const map = spread(grid, height, width)
    if (T === n) return map
    return map.add<tf.Tensor2D>(spread(values.slice([n, 0, 0], [1, h, w]).reshape([h, w]), height, width))
  })

/** A map without its negative values, divided by its sum; zeros where nothing is positive. */
export const normalizedMap = (map: tf.Tensor2D): tf.Tensor2D =>
  tf.tidy(() => {
    const positive = map.relu()
    return positive.divNoNan(positive.sum())
  })
