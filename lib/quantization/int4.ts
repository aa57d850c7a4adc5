import { bfloat16, type GroupFormat, nearestEven } from './group.js'

/**
 * The int4 format of a weight: 4.5 bits a weight. Groups of 32 weights share a bfloat16 scale; a weight is its scale times one of the 16
 * levels of `codebook`. formats.ts has the layout in memory, lib/engines/kernels/cpu/quantization the same in C++.
 */

/** Levels of int4 with the least squared error (7.3 %) for Gaussian weights in groups of 32 with optimal scales. By Lloyd's algorithm. */
export const codebook = [-127, -100, -80, -63, -48, -34, -21, -9, 2, 14, 25, 37, 50, 65, 84, 109] as const

const { fround } = Math

/** Twice the midpoints between neighbouring levels, which are integers. */
const midpoints = codebook.slice(1).map((level, i) => codebook[i]! + level)

/** Index of the nearest level for `2 · weight / scale`, truncated to an integer `i - 255`. */
const nearestNumbers = Int8Array.from({ length: 511 }, (_, i) => {
  const value = i - 255
  return midpoints.filter((midpoint) => (value > 0 ? value >= midpoint : value > midpoint)).length
})

/**
 * Candidate scales of a group: the largest weight at an end of the codebook, or a factor beyond it. For every candidate, the level of each
 * weight in 127ths of the largest weight, `[w + 127]`.
 */
const candidatesOf = (factors: readonly number[]): readonly Int32Array[] =>
  [codebook[0], codebook[15]].flatMap((end) =>
    factors.map((factor) =>
      Int32Array.from({ length: 255 }, (_, i) => {
        const x = ((i - 127) * end) / (127 * factor)
        return codebook[midpoints.filter((midpoint) => 2 * x > midpoint).length]!
      })
    )
  )

/** The candidates of plain quantization, which the C++ kernels have too. */
const candidates = candidatesOf([0.9, 0.98, 1.06, 1.16])
/** More candidates, for errors that are weighted: there an outlier may be cut off. Calibration takes the time. */
const fineCandidates = candidatesOf(Array.from({ length: 16 }, (_, i) => 0.7 + 0.04 * i))

/**
 * The scale (in 127ths of the group's largest weight) with the least squared error, weighted by `importance`: `product / square` of the
 * best candidate.
 */
const bestRatio = (weights: Int8Array, importance?: Float32Array): number => {
  let [best, ratio] = [-1, 0]
  for (const levels of importance ? fineCandidates : candidates) {
    let [product, square] = [0, 0]
    for (let i = 0; i < weights.length; i++) {
      const [w, share] = [weights[i]!, importance ? importance[i]! : 1]
      const level = levels[w + 127]!
      product += share * w * level
      square += share * level * level
    }
    const gain = (product * product) / square
    if (gain > best) [best, ratio] = [gain, product / square]
  }
  return ratio
}

/** Clamps to `[-most, most]`; NaN becomes `-most`. */
const bounded = (x: number, most: number): number => (x > -most ? Math.min(x, most) : -most)

const smallestNormal = 2 ** -126

const int4Scale = (weights: Float32Array, importance?: Float32Array): number => {
  const [high, low] = [weights.reduce((a, b) => (b > a ? b : a)), weights.reduce((a, b) => (b < a ? b : a))]
  const most = high >= -low ? high : low
  const inverse = fround(127 / most)
  if (!Number.isFinite(inverse)) return 0
  const rounded = Int8Array.from(weights, (w) => nearestEven(bounded(fround(w * inverse), 127)))
  const scale = bfloat16(fround((bestRatio(rounded, importance) * most) / 127))
  return Math.abs(scale) >= smallestNormal && Number.isFinite(scale) ? scale : 0
}

/** int4: the best of the candidate scales, and the nearest level of every weight. */
export const int4Format: GroupFormat = {
  scaleOf: int4Scale,
  numberOf: (weight, scale) =>
    scale === 0 ? 0 : nearestNumbers[Math.trunc(bounded(fround(weight * fround(2 / scale)), 255)) + 255]!,
  levelOf: (number) => codebook[number]!
}
