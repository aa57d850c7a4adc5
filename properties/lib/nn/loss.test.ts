import assert from 'node:assert/strict'
import { causalLoss } from '../../../lib/nn/loss.js'
import { tf } from '../../../lib/tf.js'
import { seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'
import { layers, unpack } from '../../reference/layers.js'

describe('loss', () => {
  const { logits, labels, loss, gradient } = layers.losses
  const wanted = () => tf.tensor2d(labels, undefined, 'int32')

  it('causalLoss and its gradient are PyTorch’s, ignored labels left out', () =>
    tf.tidy(() => {
      const { value, grad } = tf.valueAndGrad((x) => causalLoss(x as tf.Tensor3D, wanted()))(unpack(logits))
      assertClose(value, tf.scalar(loss), 1e-6)
      assertClose(grad, unpack(gradient), 1e-6)
    }))

  it('the same added to all logits of a place changes nothing, however much', () =>
    check(seed, (seed) => {
      const shift = tf.randomUniform([2, 5, 1], -500, 500, 'float32', seed)
      const moved = causalLoss(unpack<tf.Tensor3D>(logits).add(shift), wanted())
      assert.ok(Math.abs(moved.dataSync()[0]! - loss) < 1e-3)
    }))
})
