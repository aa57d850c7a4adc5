import { ignoreIndex, type Reduction, reductionWeights } from '../../../lib/nn/losses/cross-entropy.js'
import type { Positions } from '../../../lib/nn/rope.js'
import { tf } from '../../../lib/tf.js'
import { type Batch, pixelsOf } from './collate.js'
import type { Sample, SampleSize } from './sample.js'
import type { PositionsOf } from './v2pe-positions.js'

export interface PackOptions {
  /** Maximum number of tokens of a row. Source: `max_packed_tokens`. */
  readonly maxTokens: number
  /** Maximum number of tiles of a row. Default: no limit. Source: `num_images_expected`. */
  readonly maxTiles?: number
  /** Number of open rows; the fullest row is closed when another is opened. Default: 20. Source: `max_buffer_size`. */
  readonly openRows?: number
}

interface OpenRow extends SampleSize {
  readonly indices: readonly number[]
}

/**
 * Packs samples into rows, first fit: each sample, in order, goes into the first open row with enough room. A sample larger than a row
 * gets a row for itself. A function of the sizes, so that the rows of an epoch are known before the first sample is made.
 * Source: `PackedDataset` (OpenGVLab, dataset_packed.py).
 */
export const packRows = (
  order: readonly number[],
  sizeOf: (index: number) => SampleSize,
  { maxTokens, maxTiles = Number.POSITIVE_INFINITY, openRows = 20 }: PackOptions
): readonly (readonly number[])[] => {
  const done: (readonly number[])[] = []
  const open: OpenRow[] = []
  for (const index of order) {
    const { tokens, tiles } = sizeOf(index)
    const at = open.findIndex((row) => row.tokens + tokens <= maxTokens && row.tiles + tiles <= maxTiles)
    const row = open[at]
    if (row) {
      open[at] = { indices: [...row.indices, index], tokens: row.tokens + tokens, tiles: row.tiles + tiles }
      continue
    }
    if (open.length >= openRows) {
      const fullest = open.reduce((best, { tokens: n }, i) => (n > open[best]!.tokens ? i : best), 0)
      done.push(open.splice(fullest, 1)[0]!.indices)
    }
    open.push({ indices: [index], tokens, tiles })
  }
  return [...done, ...open.map(({ indices }) => indices)]
}

/** A batch whose rows hold several samples each. Tokens attend only within their sample, and positions restart with each sample. */
export interface PackedBatch extends Batch {
  /** `[B, L]` int32: the number of each token's sample in its row, from 1; 0 at padding. */
  readonly segments: tf.Tensor2D
  /** `[B][L]`, from 0 in every sample. */
  readonly positionIds: Positions
}

export interface PackedBatchOptions {
  /** Id of the padding token. */
  readonly padId: number
  readonly reduction?: Reduction
  /** Position ids of the samples. Default: 0, 1, 2, … in each sample. */
  readonly positions?: PositionsOf | undefined
}

/**
 * Collates groups of samples, one group per row. `model(batch, batch)` gives each sample the same logits as a batch with one sample per
 * row, and the same loss. Throws a `RangeError` without groups, or for an empty group.
 */
export const collatePacked = (
  groups: readonly (readonly Sample[])[],
  { padId, reduction = 'token', positions }: PackedBatchOptions
): PackedBatch => {
  if (groups.length === 0 || groups.some((group) => group.length === 0)) throw new RangeError('collatePacked: no samples')
  const L = Math.max(...groups.map((group) => group.reduce((sum, { ids }) => sum + ids.length, 0)))
  const rows = (values: (sample: Sample, number: number) => Iterable<number>, padding: number) =>
    groups.map((group) => {
      const row = group.flatMap((sample, i) => [...values(sample, i + 1)])
      return [...row, ...Array<number>(L - row.length).fill(padding)]
    })
  const matrix = (values: ReadonlyArray<readonly number[]>, dtype: 'int32' | 'float32') =>
    tf.tensor2d(values.flat(), [groups.length, L], dtype)
  const segments = rows(({ ids }, number) => Array<number>(ids.length).fill(number), 0)
  // the last token of the sample before must not predict the first token of this sample
  const labels = rows((sample) => sample.labels.map((label, i) => (i === 0 ? ignoreIndex : label)), ignoreIndex)
  const samples = groups.flat()
  const positionsOfSample = new Map(positions?.(samples).map((row, i) => [samples[i]!, row] as const))
  const pixelValues = pixelsOf(samples)
  const attentionMask = segments.map((row) => row.map((number) => (number > 0 ? 1 : 0)))
  return {
    inputIds: matrix(rows(({ ids }) => ids, padId), 'int32'), // biome-ignore format: one line a tensor
    attentionMask: matrix(attentionMask, 'int32'),
    segments: matrix(segments, 'int32'),
    positionIds: rows((sample) => positionsOfSample.get(sample) ?? sample.ids.keys(), 0),
    labels: matrix(labels, 'int32'),
    lossWeights: matrix(reductionWeights(labels, reduction, segments), 'float32'),
    ...(pixelValues ? { pixelValues } : {}),
    numPatches: samples.flatMap(({ numPatches }) => numPatches),
    samples: samples.length,
    supervised: labels.flat().filter((label) => label !== ignoreIndex).length
  }
}
