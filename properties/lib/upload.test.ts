import assert from 'node:assert/strict'
import fc from 'fast-check'
import { dtypeBytes, type StoredDtype, toFloat32 } from '../../lib/dtype.js'
import { tf } from '../../lib/tf.js'
import { type Pieces, uploadPieces } from '../../lib/upload.js'
import { checkAsync } from '../laws/check.js'

/** Bytes in pieces of so many rows, all in the same memory, which is spoilt after each. */
async function* inPieces(bytes: Uint8Array, size: number): Pieces {
  const memory = new Uint8Array(size)
  for (let at = 0; at < bytes.length; at += size) {
    const piece = memory.subarray(0, Math.min(size, bytes.length - at))
    piece.set(bytes.subarray(at, at + size))
    yield piece
    memory.fill(255)
  }
}

const drawn = fc.record({
  shape: fc.oneof(
    fc.tuple(fc.integer({ min: 1, max: 9 })),
    fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 5 })),
    fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 5 }))
  ),
  dtype: fc.constantFrom<StoredDtype>('F32', 'BF16', 'F16', 'F64', 'U8'),
  rows: fc.integer({ min: 1, max: 4 }),
  seed: fc.nat(1000)
})

describe('uploading stored tensors', () => {
  it('pieces of any number of rows make the tensor that the bytes say, and leave nothing else', () =>
    checkAsync(
      drawn,
      async ({ shape, dtype, rows, seed }) => {
        const size = shape.reduce((a, b) => a * b, 1)
        const exponents = [0x3c, 0xbc, 0x40] // of no NaN in any type, so that values can be compared
        const bytes = Uint8Array.from({ length: size * dtypeBytes[dtype] }, (_, i) =>
          (i + 1) % dtypeBytes[dtype] ? (i * 37 + seed) % 256 : exponents[(i + seed) % 3]!
        )
        const before = tf.memory().numTensors
        const tensor = await uploadPieces(inPieces(bytes, rows * shape.at(-1)! * dtypeBytes[dtype]), dtype, shape)
        assert.deepEqual(tensor.shape, shape)
        assert.deepEqual(tensor.dataSync(), toFloat32(bytes, dtype))
        tensor.dispose()
        assert.equal(tf.memory().numTensors, before)
      },
      100
    ))

  it('reading that fails half way leaves nothing', async () => {
    const before = tf.memory().numTensors
    const failing = async function* (): Pieces {
      yield new Uint8Array(8)
      throw new Error('cut short')
    }
    await assert.rejects(uploadPieces(failing(), 'F32', [4, 2]), /cut short/)
    assert.equal(tf.memory().numTensors, before)
  })
})
