import { random } from '../../../lib/random.js'

/** The indices 0 to `length` - 1 in random order: a function of the seed and the epoch, so that a run can resume anywhere. */
export const shuffledIndices = (length: number, seed: number, epoch = 0): readonly number[] =>
  random(seed, epoch).shuffled(Array.from({ length }, (_, i) => i))

const chunks = <A>(list: readonly A[], size: number): readonly (readonly A[])[] =>
  Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size))

/**
 * Indices in an order that puts samples of similar length into the same batch: shuffled, split into groups of `batchesPerGroup` batches,
 * each group sorted by length, and its batches shuffled. The longest sample comes first, so that a batch too large for the memory fails
 * at once. A function of lengths, seed and epoch.
 * Source: `get_length_grouped_indices` (transformers, trainer_pt_utils.py), which does not shuffle the batches.
 */
export const lengthGroupedIndices = (
  lengths: readonly number[],
  batchSize: number,
  seed: number,
  epoch = 0,
  batchesPerGroup = Math.min(50, Math.ceil(lengths.length / (4 * batchSize)))
): readonly number[] => {
  const rng = random(seed, epoch, 1)
  const groupSize = batchSize * Math.max(1, batchesPerGroup)
  const groups = chunks(shuffledIndices(lengths.length, seed, epoch), groupSize).map((indices) =>
    chunks(
      [...indices].sort((a, b) => lengths[b]! - lengths[a]!),
      batchSize
    )
  )
  const batches = groups.flatMap((group) => {
    const whole = group.filter((batch) => batch.length === batchSize)
    return [...rng.shuffled(whole), ...group.slice(whole.length)]
  })
  const longest = batches.reduce((best, batch, i) => (lengths[batch[0]!]! > lengths[batches[best]![0]!]! ? i : best), 0)
  const first = batches[longest]
  return first ? [...first, ...batches.filter((_, i) => i !== longest).flat()] : []
}

/** Position of a run in its data. */
export interface SamplerPosition {
  readonly epoch: number
  /** Number of samples of the epoch that are done. */
  readonly position: number
}

/** Indices without end from a position on, epoch after epoch, each epoch in its own order. Throws a `RangeError` for an empty order. */
export function* endlessSampler(
  order: (epoch: number) => readonly number[],
  { epoch, position }: SamplerPosition = { epoch: 0, position: 0 }
) {
  let from = position
  for (let e = epoch; ; e++) {
    const indices = order(e)
    if (indices.length === 0) throw new RangeError('endlessSampler: the order is empty')
    for (let i = from; i < indices.length; i++) yield { index: indices[i]!, epoch: e, position: i }
    from = Math.max(0, from - indices.length)
  }
}
