import fc from 'fast-check'
import { resizeGrid } from '../../../lib/nn/interpolate.js'
import { tf } from '../../../lib/tf.js'
import { count, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'
import { layers, unpack } from '../../reference/layers.js'

const grid = fc.tuple(count(5), count(5))

describe('resizeGrid', () => {
  for (const { x, source, to, out } of layers.grids)
    it(`${source} to ${to} is PyTorch's bicubic`, () =>
      tf.tidy(() => assertClose(resizeGrid(unpack<tf.Tensor2D>(x), source, to), unpack(out), 1e-6)))

  it('resizing to the same size changes nothing, and a constant stays constant', () =>
    check(fc.record({ from: grid, to: grid, seed }), ({ from, to, seed }) => {
      const x = randomTensor<tf.Tensor2D>([from[0] * from[1], 3], seed)
      assertClose(resizeGrid(x, from, from), x)
      assertClose(resizeGrid(tf.onesLike(x), from, to), tf.ones([to[0] * to[1], 3]))
    }))
})
