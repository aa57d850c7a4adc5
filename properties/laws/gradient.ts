import assert from 'node:assert/strict'
import { mapParams, namedParameters } from '../../lib/params.js'
import type { tf } from '../../lib/tf.js'
import { randomTensor } from '../arbitraries/tensor.js'

/** Number of random directions. A gradient with an error of 17 % orthogonal to it passes one direction in ten, and all four never. */
const directions = 4

/** Finite-difference steps. A large step may change the chosen experts of a mixture; a small step meets the precision of float32. */
const steps = [3e-3, 1e-3, 3e-4]

const inner = (a: unknown, b: unknown): number => {
  const other = new Map(namedParameters(b))
  return namedParameters(a).reduce((sum, [path, x]) => sum + x.mul(other.get(path)!).sum().dataSync()[0]!, 0)
}

/**
 * Asserts that `grads` is the gradient of `loss` at `params`: its inner product with random directions `d` (normal entries, all
 * parameters at once) equals the central difference of the loss along `d`. The tolerance of a direction is 2 % of the inner product, or of
 * half the gradient's norm where the direction is nearly orthogonal to it.
 */
export const assertGradient = <P>(loss: (params: P) => tf.Scalar, params: P, grads: P, seed: number): void => {
  const norm = Math.sqrt(inner(grads, grads))
  for (let k = 0; k < directions; k++) {
    let n = 0
    const direction = mapParams((leaf) => randomTensor(leaf.shape, seed * 7919 + 1000 * k + ++n))(params)
    const byPath = new Map(namedParameters(direction))
    const lossAt = (step: number): number =>
      loss(mapParams((leaf, path) => leaf.add(byPath.get(path)!.mul(step)))(params)).dataSync()[0]!
    const expected = inner(grads, direction)
    const tolerance = 0.02 * Math.max(Math.abs(expected), norm / 2) + 2e-4
    const differences = steps.map((step) => (lossAt(step) - lossAt(-step)) / (2 * step))
    const agrees = differences.some((difference) => Math.abs(difference - expected) <= tolerance)
    assert.ok(agrees, `direction ${k}: the loss changes by ${differences}, the gradient gives ${expected} ± ${tolerance}`)
  }
}
