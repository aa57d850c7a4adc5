import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type Batch, concatRows, rowCache, selectRows } from '../../../generation/decoding/batch-cache.js'
import { joinRows } from '../../../generation/engine/process/join-rows.js'
import { attendCached } from '../../../lib/nn/attention/cached-attention.js'
import { type LayerCache, usedKeys, usedValues } from '../../../lib/nn/attention/kv-cache.js'
import { tf } from '../../../lib/tf.js'

const [G, K] = [2, 6]

/** A batch of rows with the given padding, whose cache has the type and `length` positions of random keys and values. */
const randomBatch = (cacheType: LayerCache['type'], padding: readonly number[], length: number, seed: number): Batch => {
  const [B, C] = [padding.length, length]
  const heads = (i: number) => tf.randomNormal<tf.Rank.R3>([B, C, G * K], 0, 1, 'float32', seed + i)
  const rope = { cos: tf.ones<tf.Rank.R4>([1, 1, C, K]), sin: tf.zeros<tf.Rank.R4>([1, 1, C, K]) }
  const options = { numHeads: G, numKeyValueHeads: G, rope, cacheType }
  const { cache } = attendCached([heads(0), heads(1), heads(2)], undefined, options)
  const positions = padding.map((pad) => Array.from({ length: length - pad }, (_, i) => i))
  return { kv: [cache], padding, positions, longestLength: length, ropeLength: 0 }
}

/** Keys and values of one row without its padding, position by position. */
const rowOf = ({ kv, padding }: Pick<Batch, 'kv' | 'padding'>, row: number): number[][] =>
  [usedKeys(kv[0]!), usedValues(kv[0]!)].map((t) => {
    const start = padding[row]!
    return [...t.slice([row, 0, start, 0], [1, G, kv[0]!.length - start, K]).dataSync()]
  })

const anyBatch = fc
  .array(fc.nat(5), { minLength: 1, maxLength: 3 })
  .chain((padding) => fc.tuple(fc.constant(padding), fc.integer({ min: 6, max: 40 }), fc.nat(100)))

describe('rows of a KV cache', () => {
  const types = fc.constantFrom('float32' as const, 'bfloat16' as const, 'int8' as const)

  it('keep their keys and values when they are selected, joined, cut to one row, and concatenated', () =>
    fc.assert(
      fc.property(types, fc.tuple(anyBatch, anyBatch), fc.nat(), (type, given, pick) =>
        tf.tidy(() => {
          const batches = given.map((batch) => randomBatch(type, ...batch))
          const rows = batches.map(({ padding }) => [...padding.keys()].filter((i) => i === 0 || (pick >> i) % 2 === 0))
          const expected = batches.flatMap((batch, i) => rows[i]!.map((row) => rowOf(batch, row)))
          const joined = joinRows(batches.map((batch, i) => ({ batch, rows: rows[i]! })))
          const reversed = selectRows(joined, [...expected.keys()].reverse())
          for (const [i, row] of expected.entries()) {
            assert.deepEqual(rowOf(joined, i), row)
            assert.deepEqual(rowOf(reversed, expected.length - 1 - i), row)
          }
          const lengths = joined.padding.map((pad) => joined.kv[0]!.length - pad)
          const longest = Math.max(...lengths)
          const caches = lengths.map((length, i) => rowCache(joined, i, new Array(length).fill(0)))
          const kv = concatRows([...caches, undefined], [...lengths, 0])
          const padding = [...lengths, 0].map((length) => longest - length)
          for (const [i, row] of expected.entries()) assert.deepEqual(rowOf({ kv, padding }, i), row)
          assert.equal(kv[0]!.length, longest)
        })
      ),
      { numRuns: 60 }
    ))
})
