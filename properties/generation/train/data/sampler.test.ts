import assert from 'node:assert/strict'
import fc from 'fast-check'
import { endless, lengthGroupedOrder, shuffledOrder } from '../../../../generation/train/data/sampler.js'
import { count } from '../../../arbitraries/tensor.js'
import { check } from '../../../laws/check.js'

const lengths = fc.array(count(50), { minLength: 1, maxLength: 60 })
const sorted = (list: readonly number[]) => [...list].sort((a, b) => a - b)

describe('orders', () => {
  it('hold every index once, and depend on seed and epoch alone', () =>
    check(fc.tuple(lengths, count(8), fc.nat(), fc.nat(9)), ([list, batch, seed, epoch]) => {
      for (const order of [() => shuffledOrder(list.length, seed, epoch), () => lengthGroupedOrder(list, batch, seed, epoch)]) {
        assert.deepEqual(sorted(order()), [...list.keys()])
        assert.deepEqual(order(), order())
      }
    }))

  it('another epoch has another order', () => assert.notDeepEqual(shuffledOrder(50, 1, 0), shuffledOrder(50, 1, 1)))

  it('grouped by length, batches waste less, and the longest sample comes first', () =>
    check(fc.tuple(fc.array(count(1000), { minLength: 200, maxLength: 300 }), fc.nat()), ([list, seed]) => {
      const waste = (order: readonly number[]) => {
        let cells = 0
        for (let i = 0; i < order.length; i += 8) cells += 8 * Math.max(...order.slice(i, i + 8).map((at) => list[at]!))
        return cells
      }
      const grouped = lengthGroupedOrder(list, 8, seed)
      assert.ok(waste(grouped) < 0.85 * waste(shuffledOrder(list.length, seed)), 'a sixth less at least')
      assert.equal(list[grouped[0]!], Math.max(...list))
    }))

  it('gone on with from a place, an endless order is the rest of the unbroken one', () =>
    check(fc.tuple(count(10), fc.nat(), count(30)), ([length, seed, steps]) => {
      const order = (epoch: number) => shuffledOrder(length, seed, epoch)
      const whole = endless(order)
      const walked = Array.from({ length: steps + 5 }, () => whole.next().value!)
      const { epoch, position } = walked[steps]!
      const rest = endless(order, { epoch, position })
      assert.deepEqual(
        Array.from({ length: 5 }, () => rest.next().value),
        walked.slice(steps)
      )
    }))
})
