import fc from 'fast-check'
import { tf } from '../../lib/tf.js'

const { PROPERTY_SEED, PROPERTY_RUNS } = process.env

/**
 * Checks a property of generated values, with a `tf.tidy` scope for each. Deterministic; `PROPERTY_SEED` sets another seed, and
 * `PROPERTY_RUNS` multiplies the number of values.
 */
export const check = <A>(arbitrary: fc.Arbitrary<A>, holds: (value: A) => void, runs = 5): void =>
  fc.assert(
    fc.property(arbitrary, (value) => tf.tidy(() => void holds(value))),
    { seed: Number(PROPERTY_SEED ?? 20), numRuns: runs * Number(PROPERTY_RUNS ?? 1), endOnFailure: true }
  )

/** The same for asynchronous properties, which dispose their own tensors. */
export const checkAsync = <A>(arbitrary: fc.Arbitrary<A>, holds: (value: A) => Promise<void>, runs = 5): Promise<void> =>
  fc.assert(fc.asyncProperty(arbitrary, holds), {
    seed: Number(PROPERTY_SEED ?? 20),
    numRuns: runs * Number(PROPERTY_RUNS ?? 1),
    endOnFailure: true
  })
