import { fromFloat32, toFloat32 } from '../dtype.js'

/** Number of weights in a group, which has one scale. */
export const groupSize = 32

const { fround } = Math
/** Rounds to the nearest bfloat16. */
export const bfloat16 = (x: number): number => toFloat32(fromFloat32(Float32Array.of(x), 'BF16'), 'BF16')[0]!

/** Rounds to the nearest integer, ties to even. */
export const nearestEven = (x: number): number => fround(fround(x + 12582912) - 12582912)

/** The arithmetic of a format in groups: a weight is its group's scale times the level of its number. */
export interface GroupFormat {
  /**
   * The scale of a group, a bfloat16; 0 where all weights are rounded to 0. `importance` are the weights of the squared errors of the
   * group's members, which are equal without it.
   */
  readonly scaleOf: (weights: Float32Array, importance?: Float32Array) => number
  /** The number of the level nearest to `weight / scale`. */
  readonly numberOf: (weight: number, scale: number) => number
  readonly levelOf: (number: number) => number
}

/** Levels `-most` to `most`, with `shift` added to every number. The largest weight has the level `most` or `-most`. */
export const uniformFormat = (most: number, shift: number): GroupFormat => ({
  scaleOf: (weights) => bfloat16(fround(weights.reduce((size, w) => Math.max(size, Math.abs(w)), 0) / most)),
  numberOf: (weight, scale) => shift + (scale === 0 ? 0 : Math.min(most, Math.max(-most, nearestEven(fround(weight / scale))))),
  levelOf: (number) => number - shift
})
