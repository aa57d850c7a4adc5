import { softmax } from './logits-warpers.js'

/** Two 32-bit numbers that stand for everything that went into them. */
type Digest = readonly [number, number]

/** Mixes one more number in. Source: the 32-bit finaliser of MurmurHash3, two lanes with different constants. */
const absorb = ([a, b]: Digest, value: number): Digest => {
  const mix = (h: number, first: number, second: number): number => {
    let x = h
    x = Math.imul(x ^ (x >>> 16), first)
    x = Math.imul(x ^ (x >>> 13), second)
    return (x ^ (x >>> 16)) >>> 0
  }
  return [
    mix((Math.imul(a, 5) + value + Math.imul(b, 0x9e3779b9)) >>> 0, 0x85ebca6b, 0xc2b2ae35),
    mix((Math.imul(b, 9) ^ Math.imul(value + 0x7f4a7c15, 0x2545f491) ^ a) >>> 0, 0x7feb352d, 0x846ca68b)
  ]
}

/**
 * Chance as a value: uniform numbers in (0, 1) that depend on the seed and on every token so far, and on nothing else. So a row
 * draws the same tokens alone, in any batch, and after it was stopped and continued.
 */
export interface Chance {
  readonly after: (ids: readonly number[]) => Chance
  /** The `n`-th number at this place. */
  readonly uniform: (n?: number) => number
}

const chanceAt = (digest: Digest): Chance => ({
  after: (ids) => chanceAt(ids.reduce(absorb, digest)),
  uniform: (n = 0) => {
    const [a, b] = absorb(absorb(digest, n + 1), 0x5bd1e995)
    return (a * 2 ** 21 + (b >>> 11) + 0.5) / 2 ** 53
  }
})

/** The chance of a seed; `sample` tells several answers to the same prompt apart. */
export const chance = (seed: number, sample = 0): Chance =>
  chanceAt([seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0].reduce<Digest>(absorb, absorb([0x243f6a88, 0x85a308d3], sample)))

/** The index drawn from probabilities proportional to `exp(logits)`, by `uniform` in (0, 1). Throws where none is possible. */
export const draw = (logits: Float32Array, uniform: number): number => {
  const probabilities = softmax(logits)
  let left = uniform
  let last = -1
  for (const [i, p] of probabilities.entries()) {
    if (!(p > 0)) continue
    last = i
    left -= p
    if (left < 0) return i
  }
  if (last < 0) throw new RangeError('logits: no token is possible (all are forbidden, or not a number)')
  return last
}
