import { random } from '../../../lib/random.js'

/** A two-sided paired test of equal means. */
export interface PairedTest {
  /** `mcnemar`: exact, where all differences have one size, as of 0 and 1; `sign-flip`: a permutation test for other scores. */
  readonly name: 'mcnemar' | 'sign-flip'
  /** Probability of a difference at least as large where neither of the two is better. */
  readonly p: number
}

/** `2 · P(X ≤ k)` for X of a binomial distribution of n trials at 1/2, at most 1. */
const twoSidedBinomial = (k: number, n: number): number => {
  let log = -n * Math.LN2 // log of C(n, 0) / 2ⁿ
  let sum = 0
  for (let i = 0; i <= k; i++) {
    sum += Math.exp(log)
    log += Math.log(n - i) - Math.log(i + 1)
  }
  return Math.min(1, 2 * sum)
}

/** Share of sign patterns whose sum is at least as far from 0 as that of the differences: all 2ⁿ of them. */
const allPatterns = (differences: readonly number[], limit: number): number => {
  let extreme = 0
  for (let bits = 0; bits < 2 ** differences.length; bits++) {
    let sum = 0
    for (const [i, difference] of differences.entries()) sum += (bits >> i) & 1 ? difference : -difference
    if (Math.abs(sum) >= limit) extreme++
  }
  return extreme / 2 ** differences.length
}

const samples = 10_000

/** The same share among sampled patterns; the observed pattern counts once, so that the share is never 0. */
const sampledPatterns = (differences: readonly number[], limit: number, seed: number): number => {
  const { uniform } = random(seed, 0x51f)
  let extreme = 0
  for (let sample = 0; sample < samples; sample++) {
    let sum = 0
    for (const difference of differences) sum += uniform() < 0.5 ? difference : -difference
    if (Math.abs(sum) >= limit) extreme++
  }
  return (extreme + 1) / (samples + 1)
}

/**
 * Tests whether two lists of scores of the same rows have equal means. Without differences p is 1. Source: McNemar 1947, exact form;
 * `scipy.stats.permutation_test` with `permutation_type='samples'`.
 */
export const pairedTest = (a: readonly number[], b: readonly number[], seed = 0): PairedTest => {
  const differences = a.map((score, i) => b[i]! - score).filter((difference) => difference !== 0)
  const better = differences.filter((difference) => difference > 0).length
  if (differences.every((difference) => Math.abs(difference) === Math.abs(differences[0]!)))
    return { name: 'mcnemar', p: twoSidedBinomial(Math.min(better, differences.length - better), differences.length) }
  const limit = Math.abs(differences.reduce((sum, difference) => sum + difference, 0)) - 1e-9
  const p = differences.length <= 16 ? allPatterns(differences, limit) : sampledPatterns(differences, limit, seed)
  return { name: 'sign-flip', p }
}
