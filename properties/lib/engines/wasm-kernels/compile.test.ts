import * as assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { type EngineName, selectEngine } from '../../../../lib/engines/index.js'
import { compile } from '../../../../lib/engines/wasm-kernels/compile.js'
import { attend } from '../../../../lib/nn/attention/attention.js'
import { affine } from '../../../../lib/nn/linear.js'
import { tf } from '../../../../lib/tf.js'

describe('kernels.wasm', () => {
  it('equals its compiled source; `npm run build:wasm` compiles it', async () => {
    const committed = readFileSync(new URL('../../../../lib/engines/wasm-kernels/kernels.wasm', import.meta.url))
    assert.ok(committed.equals(await compile()))
  })

  describe('in the memory of TensorFlow.js', () => {
    let initial: EngineName
    before(async () => {
      initial = (await selectEngine()).name
      await selectEngine({ engine: 'wasm' })
    })
    after(() => selectEngine({ engine: initial }))

    it('frees scratch memory, and still works after the memory has grown', () => {
      const { wasm } = tf.backend() as tf.KernelBackend & { readonly wasm: { readonly HEAPU8: Uint8Array } }
      const tensorsBefore = tf.memory().numTensors
      const filler: tf.Tensor[] = []
      const value = () =>
        tf.tidy(() => {
          const x = tf.ones([1, 1, 64, 4]) as tf.Tensor4D
          return affine(attend(x, x, x, 1), tf.ones([3, 4]) as tf.Tensor2D).dataSync()
        })
      const before = wasm.HEAPU8.length
      while (wasm.HEAPU8.length === before) filler.push(tf.zeros([1 << 20]))
      assert.ok(value().every((entry) => entry === 4))
      const grown = wasm.HEAPU8.length
      for (let i = 0; i < 1000; i++) value() // 20 MB of scratch in all
      assert.equal(wasm.HEAPU8.length, grown)
      tf.dispose(filler)
      assert.equal(tf.memory().numTensors, tensorsBefore)
    })
  })
})
