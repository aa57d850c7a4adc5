import type { Positions } from '../../../lib/nn/rope.js'
import { random } from '../../../lib/random.js'
import { imagesIn, visualDeltas, visualPositions } from '../../../models/internvl/v2pe.js'
import type { Sample } from './sample.js'

/** Positions of the tokens of a batch's samples. */
export type PositionsOf = (samples: readonly Sample[]) => Positions

/** How the tokens of the batch at a place of a run are numbered; undefined where they are counted. */
export type VisualSteps = (place: number) => PositionsOf | undefined

/** The usual way. */
export const counted: VisualSteps = () => undefined

const drawn = (seed: number, place: number, index: number, images: number): readonly number[] => {
  const rng = random(seed, place, index)
  return Array.from({ length: images }, () => rng.choice(visualDeltas))
}

/**
 * V2PE: a fixed step for image tokens, or one drawn for each image, the same for chosen and rejected answers; a function of seed and
 * place, so that a resumed run draws the same.
 */
export const visualSteps = (delta: number | 'random', imageTokenId: number | undefined, seed: number): VisualSteps => {
  if (delta === 1 || imageTokenId === undefined) return counted
  return (place) => (samples) =>
    samples.map(({ ids }, index) => {
      const row = [...ids]
      const deltas = delta === 'random' ? drawn(seed, place, index, imagesIn(row, imageTokenId)) : delta
      return visualPositions(row, imageTokenId, deltas)
    })
}
