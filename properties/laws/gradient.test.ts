import assert from 'node:assert/strict'
import { valueAndGrad } from '../../lib/autograd/grad.js'
import type { tf } from '../../lib/tf.js'
import { randomTensor, seed } from '../arbitraries/tensor.js'
import { check } from './check.js'
import { assertGradient } from './gradient.js'

type Params = { readonly weight: tf.Tensor2D; readonly bias: tf.Tensor1D }

describe('assertGradient', () => {
  const setUp = (seed: number) => {
    const x = randomTensor<tf.Tensor2D>([5, 4], seed + 1)
    const loss = ({ weight, bias }: Params) => x.matMul(weight).add(bias).tanh().square().mean() as tf.Scalar
    const params: Params = { weight: randomTensor([4, 3], seed + 2), bias: randomTensor([3], seed + 3) }
    return { loss, params, grads: valueAndGrad(loss)(params).grads }
  }

  it('accepts the gradient', () =>
    check(
      seed,
      (seed) => {
        const { loss, params, grads } = setUp(seed)
        assertGradient(loss, params, grads, seed)
      },
      20
    ))

  it('rejects a gradient with an orthogonal error of 17 %, which a step along the gradient cannot see', () =>
    check(
      seed,
      (seed) => {
        const { loss, params, grads } = setUp(seed)
        const g = grads.weight
        const norm = Math.hypot(...g.dataSync(), ...grads.bias.dataSync())
        const noise = randomTensor<tf.Tensor2D>([4, 3], seed + 4)
        const orthogonal = noise.sub(g.mul(noise.mul(g).sum().div(g.square().sum())))
        const error = orthogonal.mul<tf.Tensor2D>(0.17 * norm).div<tf.Tensor2D>(orthogonal.norm())
        const wrong = { ...grads, weight: g.add<tf.Tensor2D>(error) }
        assert.ok(Math.abs(error.mul(g).sum().dataSync()[0]!) < 1e-5 * norm)
        assert.throws(() => assertGradient(loss, params, wrong, seed), /the gradient gives/)
      },
      20
    ))

  it('rejects a gradient that is 10 % too long', () =>
    check(
      seed,
      (seed) => {
        const { loss, params, grads } = setUp(seed)
        const wrong = { weight: grads.weight.mul<tf.Tensor2D>(1.1), bias: grads.bias.mul<tf.Tensor1D>(1.1) }
        assert.throws(() => assertGradient(loss, params, wrong, seed), /the gradient gives/)
      },
      20
    ))
})
