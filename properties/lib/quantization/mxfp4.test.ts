import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dequantizeMxfp4 } from '../../../lib/quantization/mxfp4.js'

const bytes = (text: string) => new Uint8Array(Buffer.from(text, 'base64'))

describe('mxfp4', () => {
  it("gives the numbers of Transformers' convert_moe_packed_tensors, bit for bit", () => {
    const { sizes, blocks, scales, weight } = JSON.parse(
      readFileSync(new URL('../../reference/mxfp4.json', import.meta.url), 'utf8')
    )
    const numbers = dequantizeMxfp4(bytes(blocks), bytes(scales), sizes)
    assert.deepEqual(new Uint8Array(numbers.buffer), bytes(weight))
  })

  it('rejects blocks and scales of different sizes', () => {
    assert.throws(() => dequantizeMxfp4(new Uint8Array(32), new Uint8Array(2), [1, 1, 1]), RangeError)
    assert.throws(() => dequantizeMxfp4(new Uint8Array(31), new Uint8Array(2), [1, 2, 1]), RangeError)
  })
})
