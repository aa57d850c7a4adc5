import assert from 'node:assert/strict'
import fc from 'fast-check'
import { protobufFields, protobufMessage } from '../../lib/protobuf.js'

describe('protobuf', () => {
  it('reads the fields that were written', () => {
    const value = fc.oneof(fc.nat({ max: Number.MAX_SAFE_INTEGER }), fc.uint8Array({ maxLength: 200 }))
    const fields = fc.array(fc.tuple(fc.integer({ min: 1, max: 1000 }), value))
    fc.assert(
      fc.property(fields, (written) => {
        const read = [...protobufFields(protobufMessage(written))]
        assert.deepEqual(
          read.map(([number, v]) => [number, typeof v === 'number' ? v : [...v]]),
          written.map(([number, v]) => [number, typeof v === 'number' ? v : [...v]])
        )
      })
    )
  })

  it('writes nested messages and strings as bytes; refuses negative and broken numbers', () => {
    assert.deepEqual([...protobufMessage([[2, [[1, 300], [3, 'a']]]])], [18, 6, 8, 172, 2, 26, 1, 97]) // biome-ignore format: one line
    for (const number of [-1, 0.5, 2 ** 60]) assert.throws(() => protobufMessage([[1, number]]), RangeError)
  })
})
