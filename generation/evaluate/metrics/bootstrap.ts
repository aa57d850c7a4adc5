import { random } from '../../../lib/random.js'

export interface BootstrapOptions {
  /** Number of resamples: 2,000 by default. */
  readonly samples?: number
  /** Probability that the interval covers the true mean: 0.95 by default. */
  readonly confidence?: number
  /** Seed of the resamples: 0 by default. Equal seeds and scores give equal intervals. */
  readonly seed?: number
}

/** A mean with the bounds of its confidence interval. */
export interface Interval {
  readonly mean: number
  readonly low: number
  readonly high: number
}

export const meanOf = (values: ArrayLike<number>): number => {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i]!
  return sum / values.length
}

/** The quantile of sorted values, linear between two of them, as `numpy.quantile` computes it. */
const quantile = (sorted: Float64Array, q: number): number => {
  const at = q * (sorted.length - 1)
  const [i, part] = [Math.floor(at), at - Math.floor(at)]
  return sorted[i]! + part * (sorted[Math.min(i + 1, sorted.length - 1)]! - sorted[i]!)
}

/**
 * Mean of scores with its percentile bootstrap interval: rows are sampled with replacement. Throws a `RangeError` for options outside of their
 * range. Source: Efron 1979; the `percentile` method of `scipy.stats.bootstrap`.
 */
export const bootstrapInterval = (scores: readonly number[], options: BootstrapOptions = {}): Interval => {
  const { samples = 2000, confidence = 0.95, seed = 0 } = options
  if (!Number.isSafeInteger(samples) || samples < 1) throw new RangeError(`samples: expected 1 or more, got ${samples}`)
  if (!(confidence > 0 && confidence < 1))
    throw new RangeError(`confidence: expected a number between 0 and 1, got ${confidence}`)
  const mean = meanOf(scores)
  if (scores.length === 0) return { mean, low: mean, high: mean }
  const { integer } = random(seed, 0xb007)
  const means = Float64Array.from({ length: samples }, () => {
    let sum = 0
    for (let i = 0; i < scores.length; i++) sum += scores[integer(0, scores.length - 1)]!
    return sum / scores.length
  }).sort()
  return { mean, low: quantile(means, (1 - confidence) / 2), high: quantile(means, (1 + confidence) / 2) }
}
