import assert from 'node:assert/strict'
import fc from 'fast-check'
import { dtypeBytes, type FloatDtype, fromFloat32, type StoredDtype, toFloat32 } from '../../lib/dtype.js'

const bitsOf = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length)
const all16 = Uint16Array.from({ length: 65536 }, (_, i) => i)
const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => new Uint8Array(buffer, byteOffset, byteLength)
const shorts = (bytes: Uint8Array) => [...new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)]
const one = (value: number, dtype: FloatDtype) => toFloat32(fromFloat32(Float32Array.of(value), dtype), dtype)[0]!

describe('dtype', () => {
  for (const dtype of ['F16', 'BF16'] as const) {
    it(`${dtype}: every stored value round-trips bit for bit`, () => {
      const values = toFloat32(bytesOf(all16), dtype)
      const back = shorts(fromFloat32(values, dtype))
      all16.forEach((bits, i) => {
        if (Number.isNaN(values[i])) assert.ok(Number.isNaN(one(values[i]!, dtype)), `NaN ${bits}`)
        else assert.equal(back[i], bits)
      })
    })

    it(`${dtype}: rounding gives the nearest stored value, the even one of two`, () => {
      // finite values in ascending order; infinity follows the largest
      const next = dtype === 'F16' ? 65536 : 2 ** 128
      const ascending = [...toFloat32(bytesOf(all16.subarray(0, 32768)), dtype)].filter(Number.isFinite)
      const lowerIndex = (v: number) => {
        let [lo, hi] = [0, ascending.length]
        while (hi - lo > 1) {
          const middle = (lo + hi) >> 1
          ;[lo, hi] = ascending[middle]! <= v ? [middle, hi] : [lo, middle]
        }
        return lo
      }
      const float = fc.oneof(
        fc.float({ noNaN: true, noDefaultInfinity: true }),
        fc.float({ min: 2 ** -27, max: 2 ** -12, noNaN: true }),
        fc.float({ min: 65000, max: 66000, noNaN: true }),
        // exactly half way between two neighbours
        fc
          .nat(ascending.length - 2)
          .map((i) => (ascending[i]! + ascending[i + 1]!) / 2)
          .filter((v) => Math.fround(v) === v)
      )
      fc.assert(
        fc.property(float, (v) => {
          const magnitude = Math.abs(v)
          const i = lowerIndex(magnitude)
          const [below, above] = [ascending[i]!, ascending[i + 1] ?? next]
          const isUp = above - magnitude < magnitude - below || (above - magnitude === magnitude - below && i % 2 === 1)
          const expected = isUp ? (above === next ? Number.POSITIVE_INFINITY : above) : below
          assert.ok(Object.is(one(v, dtype), v < 0 || Object.is(v, -0) ? -expected : expected), `${v}`)
        }),
        { numRuns: 2000 }
      )
    })
  }

  it('decodes the extreme values of the float types', () => {
    assert.deepEqual([...toFloat32(Uint8Array.of(0x7e, 0x7f, 0x01, 0x80, 0xfe), 'F8_E4M3')], [448, Number.NaN, 2 ** -9, -0, -448])
    const e5m2 = [...toFloat32(Uint8Array.of(0x7b, 0x7c, 0xfc, 0x7d, 0x01), 'F8_E5M2')]
    assert.deepEqual(e5m2, [57344, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 2 ** -16])
    assert.deepEqual(
      [65519.996, 65520, 2 ** -25, 2 ** -25 * 1.001, -(2 ** -24)].map((v) => one(v, 'F16')),
      [65504, Number.POSITIVE_INFINITY, 0, 2 ** -24, -(2 ** -24)]
    )
    assert.deepEqual(
      [1 + 2 ** -8, 1 + 3 * 2 ** -8, 3.4e38].map((v) => one(v, 'BF16')),
      [1, 1 + 2 ** -6, Number.POSITIVE_INFINITY]
    )
  })

  it('integers and booleans are read as numbers', () => {
    const cases: ReadonlyArray<readonly [StoredDtype, ArrayBufferView, readonly number[]]> = [
      ['I64', BigInt64Array.of(-5n, 7n), [-5, 7]],
      ['U64', BigUint64Array.of(5n), [5]],
      ['I32', Int32Array.of(-5), [-5]],
      ['U32', Uint32Array.of(2 ** 31), [2 ** 31]],
      ['I16', Int16Array.of(-300), [-300]],
      ['U16', Uint16Array.of(65535), [65535]],
      ['I8', Int8Array.of(-3), [-3]],
      ['U8', Uint8Array.of(253), [253]],
      ['BOOL', Uint8Array.of(0, 1), [0, 1]],
      ['F64', Float64Array.of(0.1), [Math.fround(0.1)]]
    ]
    for (const [dtype, values, expected] of cases) assert.deepEqual([...toFloat32(bytesOf(values), dtype)], expected, dtype)
  })

  it('bytes need not be aligned, must be whole elements, and F32 and F64 lose nothing', () => {
    fc.assert(
      fc.property(fc.float32Array(), fc.constantFrom('F32' as const, 'F64' as const), fc.nat(7), (values, dtype, offset) => {
        const bytes = fromFloat32(values, dtype)
        const shifted = new Uint8Array(bytes.length + offset)
        shifted.set(bytes, offset)
        assert.deepEqual(bitsOf(toFloat32(shifted.subarray(offset), dtype)), bitsOf(values))
        if (values.length) assert.throws(() => toFloat32(bytes.subarray(1), dtype), RangeError)
      })
    )
    assert.deepEqual(
      Object.keys(dtypeBytes).filter(
        (dtype) => toFloat32(new Uint8Array(8), dtype as StoredDtype).length !== 8 / dtypeBytes[dtype as StoredDtype]
      ),
      []
    )
  })
})
