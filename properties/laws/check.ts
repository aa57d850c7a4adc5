import fc from 'fast-check'
import { tf } from '../../lib/tf.js'

const { PROPERTY_SEED, PROPERTY_RUNS } = process.env

/**
 * Checks a property of drawn values, each draw in a scope of its own for tensors. Deterministic, unless `PROPERTY_SEED` says
 * another seed; `PROPERTY_RUNS` multiplies the number of draws.
 */
export const check = <A>(arbitrary: fc.Arbitrary<A>, holds: (value: A) => void, runs = 5): void =>
  fc.assert(
    fc.property(arbitrary, (value) => tf.tidy(() => void holds(value))),
    { seed: Number(PROPERTY_SEED ?? 20), numRuns: runs * Number(PROPERTY_RUNS ?? 1), endOnFailure: true }
  )

/** The same of what reads and writes files: its tensors are its own to dispose. */
export const checkAsync = <A>(arbitrary: fc.Arbitrary<A>, holds: (value: A) => Promise<void>, runs = 5): Promise<void> =>
  fc.assert(fc.asyncProperty(arbitrary, holds), {
    seed: Number(PROPERTY_SEED ?? 20),
    numRuns: runs * Number(PROPERTY_RUNS ?? 1),
    endOnFailure: true
  })
