import assert from 'node:assert/strict'
import fc from 'fast-check'
import { expectClose, expectEqual, expectWithin, failed, passed } from './outcome.js'

const numbers = (values: readonly number[]) => ({ shape: [values.length], values: Float32Array.from(values) })
const some = fc.array(fc.float({ min: 1, max: 100, noNaN: true }), { minLength: 1, maxLength: 8 })

describe('conformance checks', () => {
  it('pass on equal values, and fail if one differs by more than the tolerance', () =>
    fc.assert(
      fc.property(some, fc.nat(), (values, at) => {
        const wrong = values.map((x, i) => (i === at % values.length ? x + 0.01 * Math.max(...values) : x))
        assert.deepEqual(expectClose(numbers(values), numbers(values), 1e-3), passed)
        assert.equal(expectClose(numbers(wrong), numbers(values), 1e-3)._tag, 'Failed')
        assert.equal(expectWithin(wrong, values, 1e-3)._tag, 'Failed')
      })
    ))

  it('fail on NaN and on a different shape', () => {
    assert.equal(expectClose(numbers([1, Number.NaN]), numbers([1, 2]), 1e-3)._tag, 'Failed')
    assert.equal(expectClose(numbers([1, 2, 3]), numbers([1, 2]), 1e-3)._tag, 'Failed')
    assert.equal(expectWithin([1, Number.NaN, 1], [1, 1, 1], 1e-3)._tag, 'Failed')
  })

  it('skip padding rows', () => {
    const [a, b] = [
      { shape: [2, 2], values: Float32Array.of(9, 9, 1, 2) },
      { shape: [2, 2], values: Float32Array.of(0, 0, 1, 2) }
    ]
    assert.equal(expectClose(a, b, 1e-3)._tag, 'Failed')
    assert.deepEqual(expectClose(a, b, 1e-3, Float32Array.of(0, 1)), passed)
  })

  it('report the first index at which lists differ', () =>
    assert.deepEqual(expectEqual([1, [2, 3]], [1, [2, 4]]), failed('at [1] got [2,3], expected [2,4]')))
})
