import { ignored, type Reduction, reductionWeights } from '../../../lib/nn/losses/cross-entropy.js'
import type { Positions } from '../../../lib/nn/rope.js'
import { tf } from '../../../lib/tf.js'
import { type Batch, pixelsOf } from './collate.js'
import type { Sample, SampleSize } from './sample.js'
import type { PositionsOf } from './v2pe-steps.js'

export interface PackOptions {
  /** Tokens of a row at most. Source: `max_packed_tokens`. */
  readonly maxTokens: number
  /** Tiles of a row at most; any number unless given. Source: `num_images_expected`. */
  readonly maxTiles?: number
  /** Rows that are kept open; the fullest is closed when another is needed. Source: `max_buffer_size`. */
  readonly openRows?: number
}

interface OpenRow extends SampleSize {
  readonly indices: readonly number[]
}

/**
 * Puts samples into rows: each, in their order, into the first open row that has room for it. A sample that is larger than a row has
 * one of its own. A function of the sizes, so that an epoch's rows are known before the first is prepared.
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

/** A batch whose rows hold several samples each: a token sees its own sample only, and positions begin again with each. */
export interface PackedBatch extends Batch {
  /** `[B, L]` int32: the number of each token's sample in its row, from 1 on; 0 where a row is filled up. */
  readonly segments: tf.Tensor2D
  /** `[B][L]`, from 0 on in every sample. */
  readonly positionIds: Positions
}

export interface PackedBatchOptions {
  /** The id that rows are filled up with. */
  readonly padId: number
  readonly reduction?: Reduction
  /** Positions of the samples' tokens; counted from 0 on in each unless given. */
  readonly positions?: PositionsOf | undefined
}

/**
 * Packs groups of samples, one a row. `model(batch, batch)` gives each sample the logits that it has alone, and the loss of the batch
 * is that of all its samples. Throws a `RangeError` for no groups, or an empty one.
 */
export const packedBatchOf = (
  groups: readonly (readonly Sample[])[],
  { padId, reduction = 'token', positions }: PackedBatchOptions
): PackedBatch => {
  if (groups.length === 0 || groups.some((group) => group.length === 0)) throw new RangeError('packedBatchOf: no samples')
  const L = Math.max(...groups.map((group) => group.reduce((sum, { ids }) => sum + ids.length, 0)))
  const rows = (of: (sample: Sample, number: number) => Iterable<number>, filler: number) =>
    groups.map((group) => {
      const row = group.flatMap((sample, i) => [...of(sample, i + 1)])
      return [...row, ...Array<number>(L - row.length).fill(filler)]
    })
  const matrix = (values: ReadonlyArray<readonly number[]>, dtype: 'int32' | 'float32') =>
    tf.tensor2d(values.flat(), [groups.length, L], dtype)
  const segments = rows(({ ids }, number) => Array<number>(ids.length).fill(number), 0)
  // the first token of a sample stands behind another sample's last, which must not learn it
  const labels = rows((sample) => sample.labels.map((label, i) => (i === 0 ? ignored : label)), ignored)
  const samples = groups.flat()
  const places = new Map(positions?.(samples).map((row, i) => [samples[i]!, row] as const))
  const pixelValues = pixelsOf(samples)
  const attentionMask = segments.map((row) => row.map((number) => (number > 0 ? 1 : 0)))
  return {
    inputIds: matrix(rows(({ ids }) => ids, padId), 'int32'), // biome-ignore format: one line a tensor
    attentionMask: matrix(attentionMask, 'int32'),
    segments: matrix(segments, 'int32'),
    positionIds: rows((sample) => places.get(sample) ?? sample.ids.keys(), 0),
    labels: matrix(labels, 'int32'),
    lossWeights: matrix(reductionWeights(labels, reduction, segments), 'float32'),
    ...(pixelValues ? { pixelValues } : {}),
    numPatches: samples.flatMap(({ numPatches }) => numPatches),
    samples: samples.length,
    learned: labels.flat().filter((label) => label !== ignored).length
  }
}
