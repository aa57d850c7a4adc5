import assert from 'node:assert/strict'
import type { tf } from '../../lib/tf.js'

/** Tolerance relative to the largest expected number (or 1), for float32 sums in another order. */
export const float32 = 1e-5

/** The largest `|a − b|` relative to the largest `|b|`, or to 1 where that is less; NaN counts as infinite. */
export const distance = (actual: ArrayLike<number>, expected: ArrayLike<number>): number => {
  let [difference, largest] = [0, 1]
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!)
    difference = Math.max(difference, Number.isNaN(d) ? Number.POSITIVE_INFINITY : d)
    largest = Math.max(largest, Math.abs(expected[i]!))
  }
  return difference / largest
}

/** Asserts equal shapes and numbers within the tolerance. */
export const assertClose = (actual: tf.Tensor, expected: tf.Tensor, tolerance = float32, what = 'tensors'): void => {
  assert.deepEqual(actual.shape, expected.shape, `${what}: shapes`)
  const difference = distance(actual.dataSync(), expected.dataSync())
  assert.ok(difference <= tolerance, `${what}: difference ${difference}, more than ${tolerance}`)
}
