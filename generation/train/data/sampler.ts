import { random } from '../../../lib/random.js'

/** `length` indices in a random order: a function of the seed and the epoch alone, so that a run goes on anywhere in it. */
export const shuffledOrder = (length: number, seed: number, epoch = 0): readonly number[] =>
  random(seed, epoch).shuffled(Array.from({ length }, (_, i) => i))

const chunks = <A>(list: readonly A[], size: number): readonly (readonly A[])[] =>
  Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size))

/**
 * Indices in an order in which those of one batch are of like length: shuffled, cut into stretches of `stretch` batches, each sorted,
 * longest first, and its batches shuffled. The longest of all comes first, so that what is too much for the memory shows at once.
 * A function of lengths, seed and epoch. Source: `get_length_grouped_indices` (transformers, trainer_pt_utils.py), whose batches stay sorted.
 */
export const lengthGroupedOrder = (
  lengths: readonly number[],
  batchSize: number,
  seed: number,
  epoch = 0,
  stretch = Math.min(50, Math.ceil(lengths.length / (4 * batchSize)))
): readonly number[] => {
  const rng = random(seed, epoch, 1)
  const grouped = chunks(shuffledOrder(lengths.length, seed, epoch), batchSize * Math.max(1, stretch)).map((indices) =>
    chunks(
      [...indices].sort((a, b) => lengths[b]! - lengths[a]!),
      batchSize
    )
  )
  const batches = grouped.flatMap((few) => {
    const whole = few.filter((batch) => batch.length === batchSize)
    return [...rng.shuffled(whole), ...few.slice(whole.length)]
  })
  const most = batches.reduce((best, batch, i) => (lengths[batch[0]!]! > lengths[batches[best]![0]!]! ? i : best), 0)
  const first = batches[most]
  return first ? [...first, ...batches.filter((_, i) => i !== most).flat()] : []
}

/** Where a run stands in its data. */
export interface Place {
  readonly epoch: number
  /** Samples of the epoch that are done. */
  readonly position: number
}

/** Indices without an end from `place` on, epoch after epoch, each in its own order. */
export function* endless(order: (epoch: number) => readonly number[], { epoch, position }: Place = { epoch: 0, position: 0 }) {
  let from = position
  for (let e = epoch; ; e++) {
    const indices = order(e)
    if (indices.length === 0) throw new RangeError('endless: the order is empty')
    for (let i = from; i < indices.length; i++) yield { index: indices[i]!, epoch: e, position: i }
    from = Math.max(0, from - indices.length)
  }
}
