import { InternVLError, issue } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import { softmax } from './logits-warpers.js'

/** 64-bit hash state. */
type Digest = readonly [number, number]

/** Hashes one more number into the state. Source: the 32-bit finaliser of MurmurHash3, two lanes with different constants. */
const mixIn = ([a, b]: Digest, value: number): Digest => {
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
 * Immutable random generator (rng): uniform numbers in (0, 1) that depend only on the seed and the tokens folded in. A row
 * therefore samples the same tokens alone, in any batch, and after a stop and resume. Compare `jax.random.fold_in`.
 */
export interface RandomGenerator {
  /** A generator that depends on these token ids too. */
  readonly foldIn: (ids: readonly number[]) => RandomGenerator
  /** The `n`-th uniform number of this generator. */
  readonly uniform: (n?: number) => number
}

const rngFrom = (digest: Digest): RandomGenerator => ({
  foldIn: (ids) => rngFrom(ids.reduce(mixIn, digest)),
  uniform: (n = 0) => {
    const [a, b] = mixIn(mixIn(digest, n + 1), 0x5bd1e995)
    return (a * 2 ** 21 + (b >>> 11) + 0.5) / 2 ** 53
  }
})

/** The random generator of a seed; `sequence` is the index among several answers to one prompt. */
export const rngOf = (seed: number, sequence = 0): RandomGenerator =>
  rngFrom([seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0].reduce<Digest>(mixIn, mixIn([0x243f6a88, 0x85a308d3], sequence)))

/**
 * Samples an index with probabilities `softmax(logits)`, from a uniform number in (0, 1). Throws a `RangeError` if every logit is
 * minus infinity or not a number.
 */
export const sampleIndex = (logits: Float32Array, uniform: number): number => {
  const probabilities = softmax(logits)
  let remaining = uniform
  let last = -1
  for (const [i, p] of probabilities.entries()) {
    if (!(p > 0)) continue
    last = i
    remaining -= p
    if (remaining < 0) return i
  }
  if (last < 0)
    throw new RangeError(
      'logits: no token can be sampled (every logit is -Infinity or NaN); check the logits processors and the weights'
    )
  return last
}

/** The error for logits that are not numbers. */
export const invalidLogits = (): InternVLError =>
  new InternVLError([
    issue(
      'InvalidLogits',
      'The model computed logits that are NaN or infinite: its weights are damaged, or overflow in this precision; check the checkpoint, try dtype float32, or set removeInvalidValues.'
    )
  ])

/** Throws an `InternVLError` if logits `[B, V]` are NaN or plus infinity anywhere. */
export const checkLogits = async (logits: tf.Tensor2D): Promise<void> => {
  const isInvalid = tf.tidy(() => tf.logicalOr(logits.isNaN(), logits.equal(Number.POSITIVE_INFINITY)).any())
  const [found] = await isInvalid.data().finally(() => isInvalid.dispose())
  if (found) throw invalidLogits()
}
