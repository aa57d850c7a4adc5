import assert from 'node:assert/strict'
import { tf } from '../../lib/tf.js'
import { withTensorflowKernels } from '../lib/engines/tensorflow-kernels/with-tensorflow-kernels.js'
import { quantizedWeights } from './quantized-weights.js'

describe('check of a GPU: quantized weights', () => {
  withTensorflowKernels()

  for (const name of ['int8', 'int4'] as const)
    it(`${name}: every weight is quantized, and logits are those of the dequantized weights`, async () => {
      const before = tf.memory().numTensors
      const { summary, details } = await quantizedWeights(name).run()
      assert.match(summary, /^all 24 weights quantized, logits .* % away with products in float32, .* % in 16 bits$/)
      const { inFloat32, inHalf } = details as { readonly inFloat32: number; readonly inHalf: number }
      assert.ok(inFloat32 < inHalf, 'products in 16 bits round more')
      assert.equal(tf.memory().numTensors, before)
    })
})
