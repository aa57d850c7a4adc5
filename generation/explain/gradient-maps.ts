import { valueAndGrad } from '../../lib/autograd/grad.js'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import type { AnswerPart, ExplainedInput } from './explained-input.js'
import { partScores } from './scores.js'

/** The tiles `[T, 3, h, w]` of the explained image. */
export const imageTiles = ({ pixelValues, image }: ExplainedInput): tf.Tensor4D => {
  const [, C, H, W] = pixelValues.shape
  return pixelValues.slice([image.firstTile, 0, 0, 0], [image.tiles, C, H, W])
}

/**
 * The median colour of each tile, as an image without content: `[T, 3, 1, 1]`. It is the colour of the background where that is even, so
 * that covering a piece of background changes nothing.
 */
export const medianColours = (tiles: tf.Tensor4D): tf.Tensor4D => {
  const [T, C, H, W] = tiles.shape
  const values = tiles.dataSync()
  const size = H * W
  const medians = Array.from({ length: T * C }, (_, i) => values.slice(i * size, (i + 1) * size).sort()[size >> 1]!)
  return tf.tensor4d(medians, [T, C, 1, 1])
}

/** Image features `[n·T, N, D]` of n variants of all tiles: those of the explained image are `[n·tiles, N, D]`, the others stay. */
export const withImage = (
  features: tf.Tensor3D,
  { image, pixelValues }: Pick<ExplainedInput, 'image' | 'pixelValues'>,
  variants: tf.Tensor3D,
  n: number
): tf.Tensor3D => {
  const [T, N, D] = [pixelValues.shape[0], features.shape[1], features.shape[2]]
  if (image.tiles === T) return variants
  const end = image.firstTile + image.tiles
  const others = (start: number, size: number) => tf.tile(features.slice([start, 0, 0], [size, N, D]).expandDims(), [n, 1, 1, 1])
  const imageFeatures = variants.reshape([n, image.tiles, N, D])
  return tf.concat([others(0, image.firstTile), imageFeatures, others(end, T - end)], 1).reshape([n * T, N, D])
}

export interface GradientOptions {
  /** Steps of the integral. */
  readonly steps: number
  /** Steps of one backward pass. */
  readonly batchSize: number
  /** Called before each backward pass with the steps done; may throw to stop. */
  readonly onProgress?: ((done: number) => void | Promise<void>) | undefined
}

/**
 * Integrated gradients of the log-probability of a part with respect to the pixels, from the tiles' median colours to the image, summed over
 * channels: `[T, h, w]`. The sum is the difference of the scores, up to the steps. Source: Sundararajan et al. 2017.
 */
export const gradientMap = async (
  model: InternVL,
  input: ExplainedInput,
  part: AnswerPart,
  { steps, batchSize, onProgress }: GradientOptions
): Promise<tf.Tensor3D> => {
  const tiles = imageTiles(input)
  const [T, C, H, W] = tiles.shape
  const baseline = medianColours(tiles)
  const difference = tiles.sub<tf.Tensor4D>(baseline)
  const features = T === input.pixelValues.shape[0] ? undefined : tf.tidy(() => model.imageFeatures(input.pixelValues))
  const gradientOf = (shares: readonly number[]): tf.Tensor4D => {
    const n = shares.length
    const pixels = tf.concat(shares.map((share) => baseline.add<tf.Tensor4D>(difference.mul(share))))
    const { grads } = valueAndGrad((p: { pixels: tf.Tensor4D }) => {
      const imageFeatures = model.imageFeatures(p.pixels)
      return partScores(
        model,
        input,
        [part],
        features ? withImage(features, input, imageFeatures, n) : imageFeatures,
        n
      ).sum<tf.Scalar>()
    })({ pixels })
    return grads.pixels.reshape([n, T, C, H, W]).sum(0)
  }
  let sum = tf.zerosLike(tiles)
  try {
    for (let start = 0; start < steps; start += batchSize) {
      await onProgress?.(start)
      const shares = Array.from({ length: Math.min(batchSize, steps - start) }, (_, i) => (start + i + 0.5) / steps)
      const next = tf.tidy(() => sum.add<tf.Tensor4D>(gradientOf(shares)))
      sum.dispose()
      sum = next
    }
    return tf.tidy(() => sum.div(steps).mul(difference).sum<tf.Tensor3D>(1))
  } finally {
    tf.dispose([tiles, baseline, difference, sum, ...(features ? [features] : [])])
  }
}
