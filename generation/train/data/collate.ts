import { ignoreIndex, type Reduction, reductionWeights } from '../../../lib/nn/losses/cross-entropy.js'
import type { Positions } from '../../../lib/nn/rope.js'
import { ShapeError } from '../../../lib/shape.js'
import { tf } from '../../../lib/tf.js'
import type { Tokenizer } from '../../../processors/text/tokenizer.js'
import type { Sample } from './sample.js'
import type { PositionsOf } from './v2pe-positions.js'

/**
 * The inputs of a training step: `causalLoss(model(batch, batch).logits, batch.labels, batch.lossWeights)`. The caller of `collate` owns
 * the tensors and disposes them with `disposeBatch`.
 */
export interface Batch {
  /** `[B, L]` int32. */
  readonly inputIds: tf.Tensor2D
  /** `[B, L]` int32, 0 at padding. */
  readonly attentionMask: tf.Tensor2D
  /** `[B, L]` int32, the ignore index −100 at positions that are not supervised. */
  readonly labels: tf.Tensor2D
  /** `[B, L]` float32: weight of each label. */
  readonly lossWeights: tf.Tensor2D
  /** `[B, L]` int32, only in packed batches: the number of each token's sample in its row, from 1; 0 at padding. */
  readonly segments?: tf.Tensor2D
  /** `[B][L]`, only where positions differ from 0, 1, 2, …: V2PE, packed rows. */
  readonly positionIds?: Positions
  /** `[T, 3, height, width]`: the tiles of all samples. */
  readonly pixelValues?: tf.Tensor4D
  /** Number of tiles of each image, and of frames of each video, of all samples. */
  readonly numPatches: readonly number[]
  /** Number of samples. */
  readonly samples: number
  /** Number of supervised positions. */
  readonly supervised: number
}

export interface BatchOptions {
  /** Id of the padding token. */
  readonly padId: number
  /** Side of the padding. Default: right. */
  readonly side?: 'left' | 'right'
  /** Relative weight of the samples. Default: `token`, all labels weigh the same. */
  readonly reduction?: Reduction
  /** Position ids of the samples. Default: 0, 1, 2, … */
  readonly positions?: PositionsOf | undefined
}

/** The padding id of a tokenizer. */
export const padIdOf = ({ names, idOf }: Tokenizer): number => idOf(names.pad_token ?? '') ?? idOf(names.eos_token ?? '') ?? 0

/** The tiles of all samples, `[T, 3, height, width]`; undefined where no sample has images. Throws a `ShapeError` for tiles of different sizes. */
export const pixelsOf = (samples: readonly Sample[]): tf.Tensor4D | undefined => {
  const withImages = samples.filter(({ pixels }) => pixels.length > 0)
  const [first] = withImages
  if (!first) return undefined
  const { width, height } = first.tileSize
  for (const { id, tileSize } of withImages)
    if (tileSize.width !== width || tileSize.height !== height)
      throw new ShapeError(`batch: tiles of ${tileSize.width} x ${tileSize.height} (${id}) among ${width} x ${height}`)
  const all = new Float32Array(withImages.reduce((sum, { pixels }) => sum + pixels.length, 0))
  let offset = 0
  for (const { pixels } of withImages) {
    all.set(pixels, offset)
    offset += pixels.length
  }
  return tf.tensor4d(all, [all.length / (3 * width * height), 3, height, width])
}

/** Collates samples into a batch, one sample per row. Throws a `RangeError` without samples. */
export const collate = (samples: readonly Sample[], options: BatchOptions): Batch => {
  const { padId, side = 'right', reduction = 'token', positions } = options
  if (samples.length === 0) throw new RangeError('collate: no samples')
  const L = Math.max(...samples.map(({ ids }) => ids.length))
  const pad = (values: readonly number[], value: number): readonly number[] => {
    const padding = Array<number>(L - values.length).fill(value)
    return side === 'left' ? [...padding, ...values] : [...values, ...padding]
  }
  const labels = samples.map((sample) => pad([...sample.labels], ignoreIndex))
  const matrix = (rows: ReadonlyArray<readonly number[]>, dtype: 'int32' | 'float32') =>
    tf.tensor2d(rows.flat(), [samples.length, L], dtype)
  const positionIds = positions?.(samples).map((row) => pad(row, 0)) // before the first tensor, since the scheme may throw
  const pixelValues = pixelsOf(samples)
  return {
    inputIds: matrix(
      samples.map(({ ids }) => pad([...ids], padId)),
      'int32'
    ),
    attentionMask: matrix(
      samples.map(({ ids }) => pad(Array<number>(ids.length).fill(1), 0)),
      'int32'
    ),
    labels: matrix(labels, 'int32'),
    lossWeights: matrix(reductionWeights(labels, reduction), 'float32'),
    ...(positionIds ? { positionIds } : {}),
    ...(pixelValues ? { pixelValues } : {}),
    numPatches: samples.flatMap(({ numPatches }) => numPatches),
    samples: samples.length,
    supervised: labels.flat().filter((label) => label !== ignoreIndex).length
  }
}

/** Disposes the tensors of a batch. */
export const disposeBatch = ({ inputIds, attentionMask, labels, lossWeights, segments, pixelValues }: Batch): void =>
  tf.dispose([inputIds, attentionMask, labels, lossWeights, ...[segments, pixelValues].flatMap((tensor) => tensor ?? [])])
