import assert from 'node:assert/strict'
import fc from 'fast-check'
import { valueAndGrad } from '../../../lib/autograd/grad.js'
import { embedding } from '../../../lib/nn/embedding.js'
import { tf } from '../../../lib/tf.js'
import { randomParams, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'

const ids = fc.array(fc.nat(6), { minLength: 1, maxLength: 6 })

describe('embedding', () => {
  it('is the product with one-hot rows, and the gradient of a row is its number of lookups', () =>
    check(fc.record({ ids, seed }), ({ ids, seed }) => {
      const module = embedding(7, 3)
      const params = randomParams(module, seed)
      const rows = tf.tensor2d([ids], [1, ids.length], 'int32')
      const oneHot = tf.oneHot(ids, 7).toFloat()
      assertClose(module.apply(params)(rows).squeeze([0]), tf.matMul(oneHot, params.weight as tf.Tensor2D))
      const { grads } = valueAndGrad((p: typeof params) => module.apply(p)(rows).sum() as tf.Scalar)(params)
      assertClose(grads.weight as tf.Tensor2D, tf.tile(oneHot.sum(0).expandDims(1), [1, 3]))
    }))

  it('a tied head scores a token by its embedding', () =>
    check(seed, (seed) => {
      const module = embedding(7, 3)
      const params = randomParams(module, seed)
      const layer = module.apply(params)
      const all = tf.tensor2d([[0, 1, 2, 3, 4, 5, 6]], [1, 7], 'int32')
      assert.deepEqual(layer.attend(layer(all)).shape, [1, 7, 7])
      assertClose(
        layer.attend(layer(all)).squeeze([0]),
        tf.matMul(params.weight as tf.Tensor2D, params.weight as tf.Tensor2D, false, true)
      )
    }))
})
