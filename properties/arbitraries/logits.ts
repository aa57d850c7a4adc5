import fc from 'fast-check'

/** Logits of a small vocabulary, some of them forbidden, never all. */
export const logits: fc.Arbitrary<Float32Array> = fc
  .array(fc.oneof({ weight: 5, arbitrary: fc.integer({ min: -80, max: 80 }) }, { weight: 1, arbitrary: fc.constant(null) }), {
    minLength: 1,
    maxLength: 12
  })
  .filter((values) => values.some((x) => x !== null))
  .map((values) => Float32Array.from(values, (x) => (x === null ? Number.NEGATIVE_INFINITY : x / 10)))

/** Token ids of a small vocabulary, so that they repeat. */
export const tokens = (vocabulary: number, minLength = 1, maxLength = 8): fc.Arbitrary<number[]> =>
  fc.array(fc.nat(vocabulary - 1), { minLength, maxLength })
