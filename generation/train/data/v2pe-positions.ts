import type { Positions } from '../../../lib/nn/rope.js'
import { random } from '../../../lib/random.js'
import { countImages, visualDeltas, visualPositions } from '../../../models/internvl/v2pe.js'
import type { Sample } from './sample.js'

/** Position ids of the tokens of each sample of a batch. */
export type PositionsOf = (samples: readonly Sample[]) => Positions

/** The position ids of the batch with this index in the run; undefined for the default positions 0, 1, 2, … */
export type PositionScheme = (batchIndex: number) => PositionsOf | undefined

/** Positions 0, 1, 2, … */
export const defaultPositions: PositionScheme = () => undefined

const sampledDeltas = (seed: number, batchIndex: number, row: number, images: number): readonly number[] => {
  const rng = random(seed, batchIndex, row)
  return Array.from({ length: images }, () => rng.choice(visualDeltas))
}

/**
 * Positions of V2PE: a fixed increment for image tokens, or an increment sampled for each image. Chosen and rejected answers get the
 * same. A function of the seed and the index of the batch, so that a resumed run samples the same increments.
 */
export const v2pePositions = (delta: number | 'random', imageTokenId: number | undefined, seed: number): PositionScheme => {
  if (delta === 1 || imageTokenId === undefined) return defaultPositions
  return (batchIndex) => (samples) =>
    samples.map(({ ids }, index) => {
      const row = [...ids]
      const deltas = delta === 'random' ? sampledDeltas(seed, batchIndex, index, countImages(row, imageTokenId)) : delta
      return visualPositions(row, imageTokenId, deltas)
    })
}
