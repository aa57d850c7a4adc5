import assert from 'node:assert/strict'
import fc from 'fast-check'
import { endlessSampler, lengthGroupedIndices, shuffledIndices } from '../../../../generation/train/data/sampler.js'
import { count } from '../../../arbitraries/tensor.js'
import { check } from '../../../laws/check.js'

const lengths = fc.array(count(50), { minLength: 1, maxLength: 60 })
const sorted = (list: readonly number[]) => [...list].sort((a, b) => a - b)

describe('samplers', () => {
  it('contain every index once, and depend on seed and epoch alone', () =>
    check(fc.tuple(lengths, count(8), fc.nat(), fc.nat(9)), ([list, batch, seed, epoch]) => {
      for (const order of [
        () => shuffledIndices(list.length, seed, epoch),
        () => lengthGroupedIndices(list, batch, seed, epoch)
      ]) {
        assert.deepEqual(sorted(order()), [...list.keys()])
        assert.deepEqual(order(), order())
      }
    }))

  it('another epoch has another order', () => assert.notDeepEqual(shuffledIndices(50, 1, 0), shuffledIndices(50, 1, 1)))

  it('grouping by length reduces padding, and the longest sample comes first', () =>
    check(fc.tuple(fc.array(count(1000), { minLength: 200, maxLength: 300 }), fc.nat()), ([list, seed]) => {
      const waste = (order: readonly number[]) => {
        let cells = 0
        for (let i = 0; i < order.length; i += 8) cells += 8 * Math.max(...order.slice(i, i + 8).map((at) => list[at]!))
        return cells
      }
      const grouped = lengthGroupedIndices(list, 8, seed)
      assert.ok(waste(grouped) < 0.85 * waste(shuffledIndices(list.length, seed)), 'a sixth less at least')
      assert.equal(list[grouped[0]!], Math.max(...list))
    }))

  it('an endless sampler resumes from any position', () =>
    check(fc.tuple(count(10), fc.nat(), count(30)), ([length, seed, steps]) => {
      const order = (epoch: number) => shuffledIndices(length, seed, epoch)
      const whole = endlessSampler(order)
      const walked = Array.from({ length: steps + 5 }, () => whole.next().value!)
      const { epoch, position } = walked[steps]!
      const rest = endlessSampler(order, { epoch, position })
      assert.deepEqual(
        Array.from({ length: 5 }, () => rest.next().value),
        walked.slice(steps)
      )
    }))
})
