import fc from 'fast-check'
import type { Module } from '../../lib/module.js'
import { buildParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'

/** Normally distributed numbers, determined by the seed. */
export const randomTensor = <T extends tf.Tensor>(shape: readonly number[], seed: number, deviation = 1): T =>
  tf.randomNormal([...shape], 0, deviation, 'float32', seed) as tf.Tensor as T

/** Random parameters without tiny values: norm weights near 1, the others scaled to keep the variance of signals. */
export const randomParams = <P>(module: Module<P>, seed: number): P => {
  let n = 0
  return buildParams(module, (path, { shape }) => {
    const noise = randomTensor(
      [...shape],
      seed * 1009 + n++,
      shape.length > 1 ? shape.slice(1).reduce((a, b) => a * b, 1) ** -0.5 : 0.3
    )
    return /norm.*weight$|lambda/.test(path) ? noise.add(1) : noise
  })
}

export const seed = fc.nat(1000)

/** An integer from 1 to `max`, which shrinks to smaller numbers: `count(3)` is 1, 2 or 3. */
export const count = (max: number, min = 1) => fc.integer({ min, max })
