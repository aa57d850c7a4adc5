import { expectAxes, expectWhole } from '../shape.js'
import { tf } from '../tf.js'

/** The cubic convolution kernel with a = −0.75, as PyTorch's `bicubic`. Source: Keys 1981. */
const cubic = (x: number, a = -0.75): number => {
  const t = Math.abs(x)
  if (t <= 1) return (a + 2) * t ** 3 - (a + 3) * t ** 2 + 1
  return t < 2 ? a * t ** 3 - 5 * a * t ** 2 + 8 * a * t - 4 * a : 0
}

/** Row i holds the weights of the `from` inputs in output i of `to`: four taps, clamped to the border. */
const bicubicWeights = (from: number, to: number): readonly (readonly number[])[] =>
  Array.from({ length: to }, (_, i) => {
    const centre = ((i + 0.5) * from) / to - 0.5
    const first = Math.floor(centre) - 1
    const row = new Array<number>(from).fill(0)
    for (let tap = first; tap < first + 4; tap++) {
      row[Math.min(from - 1, Math.max(0, tap))]! += cubic(centre - tap)
    }
    return row
  })

/**
 * Resamples a grid of vectors, `[h·w, D] → [h'·w', D]`, row by row: bicubic, without antialiasing.
 * Source: `torch.nn.functional.interpolate(mode='bicubic', align_corners=False)`.
 */
export const resizeGrid = (
  x: tf.Tensor2D,
  [h, w]: readonly [number, number],
  [rows, columns]: readonly [number, number]
): tf.Tensor2D => {
  for (const [name, length] of Object.entries({ h, w, rows, columns })) expectWhole('resizeGrid', name, length, 1, 2 ** 20)
  expectAxes('resizeGrid', { x: [x, `${h * w} D`] })
  const D = x.shape[1]
  const [vertical, horizontal] = [
    tf.tensor2d(bicubicWeights(h, rows) as number[][]),
    tf.tensor2d(bicubicWeights(w, columns) as number[][])
  ]
  const tall = tf.matMul(vertical, x.reshape<tf.Tensor2D>([h, w * D])) // [rows, w·D]
  const byColumn = tall
    .reshape([rows, w, D])
    .transpose([1, 0, 2])
    .reshape<tf.Tensor2D>([w, rows * D])
  return tf
    .matMul(horizontal, byColumn)
    .reshape([columns, rows, D])
    .transpose([1, 0, 2])
    .reshape([rows * columns, D])
}
