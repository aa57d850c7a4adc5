import assert from 'node:assert/strict'
import fc from 'fast-check'
import { random } from '../../lib/random.js'

describe('random', () => {
  it('numbers are determined by the seeds, and differ for other seeds', () => {
    fc.assert(
      fc.property(fc.array(fc.integer(), { minLength: 1, maxLength: 3 }), (seeds) => {
        const ten = (...s: number[]) => Array.from({ length: 10 }, random(...s).uniform.bind(null, 0, 1))
        assert.deepEqual(ten(...seeds), ten(...seeds))
        assert.notDeepEqual(ten(...seeds), ten(...seeds, 1))
      })
    )
  })

  it('uniform numbers fill their range evenly, over one seed and over many', () => {
    const one = random(3)
    for (const sample of [
      () => one.uniform(),
      (
        (n) => () =>
          random(7, n++).uniform()
      )(0)
    ]) {
      const bins = new Array<number>(10).fill(0)
      for (let i = 0; i < 20_000; i++) bins[Math.floor(sample() * 10)]!++
      for (const n of bins) assert.ok(Math.abs(n - 2000) < 4 * Math.sqrt(1800), `${bins}`)
    }
  })

  it('integers stay in their range and reach both ends; shuffling keeps the elements of a list', () => {
    fc.assert(
      fc.property(fc.integer(), fc.array(fc.integer(), { maxLength: 20 }), (seed, list) => {
        const rng = random(seed)
        const sampled = new Set(Array.from({ length: 60 }, () => rng.integer(2, 4)))
        assert.deepEqual([...sampled].sort(), [2, 3, 4])
        assert.deepEqual(rng.shuffled(list).sort(), [...list].sort())
      })
    )
  })

  it('rejects a fractional seed, an empty list and zero weights', () => {
    assert.throws(() => random(0.5), /whole numbers/)
    assert.throws(() => random(1).choice([]), RangeError)
    assert.throws(() => random(1).weighted({ a: 0 }), RangeError)
  })
})
