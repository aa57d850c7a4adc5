import assert from 'node:assert/strict'
import fc from 'fast-check'
import { allReduceTree, buckets, gatherSlices, ownSlices, treeReduction } from '../../../lib/distributed/buckets.js'
import { namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { inMemoryGroup } from './in-memory-group.js'

const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 })
const treeOf = (lengths: readonly number[], first = 0) =>
  Object.fromEntries(lengths.map((n, i) => [`p${i}`, tf.tidy(() => tf.range(first, first + n).reshape([1, n]))]))
const numbers = (tree: unknown) => namedParameters(tree).map(([path, leaf]) => [path, leaf.shape, [...leaf.dataSync()]])

describe('buckets', () => {
  it('keep order and items; only a single larger item exceeds the limit', () =>
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 12 }), (items, limit) => {
        const groups = buckets(items, (n) => n, limit)
        assert.deepEqual(groups.flat(), items)
        for (const group of groups) assert.ok(group.length === 1 || group.reduce((a, b) => a + b, 0) <= limit)
      })
    ))

  it('own slices of all workers, gathered, are the whole tree', () =>
    fc.assert(
      fc.asyncProperty(sizes, fc.integer({ min: 1, max: 4 }), async (lengths, size) => {
        const tree = treeOf(lengths)
        const before = tf.memory().numTensors
        const shapes = new Map(namedParameters(tree).map(([path, leaf]) => [path, leaf.shape]))
        const whole = await Promise.all(inMemoryGroup(size).map((group) => gatherSlices(group, ownSlices(group, tree), shapes)))
        for (const one of whole) assert.deepEqual(numbers(one), numbers(tree))
        tf.dispose(whole)
        assert.equal(tf.memory().numTensors, before)
        tf.dispose(tree)
      })
    ))

  it('leaves that become known in any order are reduced in one order on all workers, each bucket once its leaves and the later buckets are there', () =>
    fc.assert(
      fc.asyncProperty(
        sizes.chain((lengths) => fc.tuple(fc.constant(lengths), ...[0, 1, 2].map(() => fc.shuffledSubarray([...lengths.keys()], { minLength: lengths.length })))), // biome-ignore format: one line
        fc.integer({ min: 1, max: 12 }),
        async ([lengths, ...orders], limit) => {
          const before = tf.memory().numTensors
          const begun: number[][] = []
          const sums = await Promise.all(
            inMemoryGroup(3).map((group, rank) => {
              const tree = treeOf(lengths, rank)
              begun[rank] = []
              const allReduce: typeof group.allReduce = (x) => {
                begun[rank]!.push(x.size)
                return group.allReduce(x)
              }
              const { add, sums } = treeReduction({ ...group, allReduce }, tree, limit)
              const members = [...buckets([...lengths.keys()], (i) => lengths[i]!, limit)].reverse()
              const totals = members.map((bucket) => bucket.reduce((sum, i) => sum + lengths[i]!, 0))
              const known = new Set<number>()
              for (const i of orders[rank]!) {
                add(`p${i}`, tree[`p${i}`]!)
                known.add(i)
                const first = members.findIndex((bucket) => !bucket.every((k) => known.has(k))) // the first that has to wait
                assert.deepEqual(begun[rank], first < 0 ? totals : totals.slice(0, first))
              }
              return sums()
            })
          )
          assert.deepEqual(begun, [begun[0], begun[0], begun[0]])
          const whole = await Promise.all(inMemoryGroup(3).map((group) => allReduceTree(group, treeOf(lengths, group.rank))))
          for (const sum of sums) assert.deepEqual(numbers(sum), numbers(whole[0]))
          tf.dispose([sums, whole])
          assert.equal(tf.memory().numTensors, before)
        }
      )
    ))

  it('a reduced tree is the sum of the trees, and the trees are disposed', () =>
    fc.assert(
      fc.asyncProperty(sizes, fc.integer({ min: 1, max: 4 }), async (lengths, size) => {
        const before = tf.memory().numTensors
        const sums = await Promise.all(inMemoryGroup(size).map((group) => allReduceTree(group, treeOf(lengths, group.rank))))
        const expected = tf.tidy(() => numbers(Object.fromEntries(Object.entries(treeOf(lengths)).map(([path, leaf]) => [path, leaf.mul(size).add((size * (size - 1)) / 2)])))) // biome-ignore format: one line
        for (const sum of sums) assert.deepEqual(numbers(sum), expected)
        tf.dispose(sums)
        assert.equal(tf.memory().numTensors, before)
      })
    ))
})
