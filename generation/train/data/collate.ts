import { ignored, type Reduction, reductionWeights } from '../../../lib/nn/losses/cross-entropy.js'
import type { Positions } from '../../../lib/nn/rope.js'
import { ShapeError } from '../../../lib/shape.js'
import { tf } from '../../../lib/tf.js'
import type { Tokenizer } from '../../../processors/text/tokenizer.js'
import type { Sample } from './sample.js'
import type { PositionsOf } from './v2pe-steps.js'

/**
 * What a training step takes: `causalLoss(model(batch, batch).logits, batch.labels, batch.lossWeights)`. The tensors belong to
 * whoever made the batch, and `disposeBatch` frees them.
 */
export interface Batch {
  /** `[B, L]` int32. */
  readonly inputIds: tf.Tensor2D
  /** `[B, L]` int32, 0 where a row is filled up. */
  readonly attentionMask: tf.Tensor2D
  /** `[B, L]` int32, −100 where nothing is learned. */
  readonly labels: tf.Tensor2D
  /** `[B, L]` float32: how much each label counts. */
  readonly lossWeights: tf.Tensor2D
  /** `[B, L]` int32, where rows hold several samples: the number of each token's, from 1 on; 0 where a row is filled up. */
  readonly segments?: tf.Tensor2D
  /** `[B][L]`, where tokens are not counted: V2PE, packed rows. */
  readonly positionIds?: Positions
  /** `[T, 3, height, width]`: the tiles of all samples. */
  readonly pixelValues?: tf.Tensor4D
  /** Tiles of each picture, frames of each film, of all samples. */
  readonly numPatches: readonly number[]
  /** Number of samples. */
  readonly samples: number
  /** Number of labels that are learned. */
  readonly learned: number
}

export interface BatchOptions {
  /** The id that rows are filled up with. */
  readonly padId: number
  /** Side on which rows are filled up; right unless given. */
  readonly side?: 'left' | 'right'
  /** How the labels of one sample weigh against another's; `token` unless given, all alike. */
  readonly reduction?: Reduction
  /** Positions of the samples' tokens; counted unless given. */
  readonly positions?: PositionsOf | undefined
}

/** The id that a tokenizer fills rows up with. */
export const padIdOf = ({ names, idOf }: Tokenizer): number => idOf(names.pad_token ?? '') ?? idOf(names.eos_token ?? '') ?? 0

/** The tiles of all samples, `[T, 3, height, width]`; none where there is none. Throws a `ShapeError` for tiles of two sizes. */
export const pixelsOf = (samples: readonly Sample[]): tf.Tensor4D | undefined => {
  const shown = samples.filter(({ pixels }) => pixels.length > 0)
  const [first] = shown
  if (!first) return undefined
  const { width, height } = first.tileSize
  for (const { id, tileSize } of shown)
    if (tileSize.width !== width || tileSize.height !== height)
      throw new ShapeError(`batch: tiles of ${tileSize.width} x ${tileSize.height} (${id}) among ${width} x ${height}`)
  const all = new Float32Array(shown.reduce((sum, { pixels }) => sum + pixels.length, 0))
  let at = 0
  for (const { pixels } of shown) {
    all.set(pixels, at)
    at += pixels.length
  }
  return tf.tensor4d(all, [all.length / (3 * width * height), 3, height, width])
}

/** A batch of samples, one a row. Throws a `RangeError` when there is none. */
export const batchOf = (samples: readonly Sample[], options: BatchOptions): Batch => {
  const { padId, side = 'right', reduction = 'token', positions } = options
  if (samples.length === 0) throw new RangeError('batchOf: no samples')
  const L = Math.max(...samples.map(({ ids }) => ids.length))
  const fill = (values: readonly number[], filler: number): readonly number[] => {
    const filling = Array<number>(L - values.length).fill(filler)
    return side === 'left' ? [...filling, ...values] : [...values, ...filling]
  }
  const labels = samples.map((sample) => fill([...sample.labels], ignored))
  const matrix = (rows: ReadonlyArray<readonly number[]>, dtype: 'int32' | 'float32') =>
    tf.tensor2d(rows.flat(), [samples.length, L], dtype)
  const pixelValues = pixelsOf(samples)
  return {
    inputIds: matrix(
      samples.map(({ ids }) => fill([...ids], padId)),
      'int32'
    ),
    attentionMask: matrix(
      samples.map(({ ids }) => fill(Array<number>(ids.length).fill(1), 0)),
      'int32'
    ),
    labels: matrix(labels, 'int32'),
    lossWeights: matrix(reductionWeights(labels, reduction), 'float32'),
    ...(positions ? { positionIds: positions(samples).map((row) => fill(row, 0)) } : {}),
    ...(pixelValues ? { pixelValues } : {}),
    numPatches: samples.flatMap(({ numPatches }) => numPatches),
    samples: samples.length,
    learned: labels.flat().filter((label) => label !== ignored).length
  }
}

/** Frees a batch's tensors. */
export const disposeBatch = ({ inputIds, attentionMask, labels, lossWeights, segments, pixelValues }: Batch): void =>
  tf.dispose([inputIds, attentionMask, labels, lossWeights, ...[segments, pixelValues].flatMap((each) => each ?? [])])
