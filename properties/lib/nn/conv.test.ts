import fc from 'fast-check'
import { conv2dPatches } from '../../../lib/nn/conv.js'
import { tf } from '../../../lib/tf.js'
import { count } from '../../arbitraries/tensor.js'
import { assertClose } from '../../laws/close.js'
import { moduleLaws } from '../../laws/module-laws.js'
import { layers, unpack } from '../../reference/layers.js'

const pair = fc.tuple(count(3), count(3))

moduleLaws(
  'conv2dPatches',
  fc.record({ channels: count(3), features: count(4), patch: pair, grid: pair, over: fc.boolean() }),
  ({ channels, features, patch: [h, w], grid: [rows, columns], over }) => ({
    module: conv2dPatches(channels, features, [h, w]),
    // incomplete patches at the border are dropped
    input: [2, channels, rows * h + (over ? h - 1 : 0), columns * w],
    output: [2, rows * columns, features]
  }),
  (forward, x) => forward(x as tf.Tensor4D)
)

describe('conv2dPatches', () => {
  it("is PyTorch's convolution whose stride is its kernel", () =>
    tf.tidy(() => {
      const { x, weight, bias, out } = layers.patches
      const layer = conv2dPatches(3, 4, [3, 2]).apply({ weight: unpack(weight), bias: unpack(bias) })
      assertClose(layer(unpack(x)), unpack(out), 1e-6)
    }))
})
