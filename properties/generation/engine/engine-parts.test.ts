import assert from 'node:assert/strict'
import { setImmediate as tick } from 'node:timers/promises'
import fc from 'fast-check'
import type { RowCache } from '../../../generation/decoding/batch-cache.js'
import { engineSettings } from '../../../generation/engine/engine-settings.js'
import { toPlainData } from '../../../generation/engine/plain-data.js'
import type { TileContent } from '../../../generation/engine/prepare/prepare-jobs.js'
import { prefixCache } from '../../../generation/engine/process/prefix-cache.js'
import { turnQueue } from '../../../generation/engine/process/turn-queue.js'
import { layerCache } from '../../../lib/nn/attention/kv-cache.js'
import { tf } from '../../../lib/tf.js'

describe('prefix cache of an engine', () => {
  const imageTokenId = 1
  const rowOf = (ids: readonly number[]): RowCache => ({
    ids,
    positions: [...ids.keys()],
    kv: [layerCache(tf.zeros([1, 1, ids.length, 2]), tf.zeros([1, 1, ids.length, 2]))]
  })
  const promptOf = (ids: readonly number[], tiles: readonly TileContent[] = [], kind = '') => ({
    ...{ ids, tiles, kind, imageTokenId },
    positions: [...ids.keys()]
  })
  const bytesPerToken = 2 * 2 * 4

  it('stays within its bytes, drops the least recently used, and reuses equal beginnings only', () =>
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer({ min: 2, max: 4 }), { minLength: 1, maxLength: 6 }), { maxLength: 12 }),
        fc.nat(20),
        (prompts, tokens) => {
          const before = tf.memory().numTensors
          const cache = prefixCache(tokens * bytesPerToken)
          for (const ids of prompts) {
            const found = cache.take(promptOf(ids))
            if (found) {
              assert.ok(found.length > 0 && found.length < ids.length)
              assert.deepEqual(found.cache.ids, ids.slice(0, found.length))
            }
            cache.put(promptOf(ids), rowOf(ids))
            found?.release()
            const size = cache.size()
            assert.ok(size.bytes <= tokens * bytesPerToken)
            assert.equal(tf.memory().numTensors - before, size.tensors)
            if (ids.length <= tokens && ids.length > 1) {
              const again = cache.take(promptOf(ids))
              assert.equal(again?.length, ids.length - 1)
              again?.release()
            }
          }
          cache.clear()
          assert.equal(tf.memory().numTensors, before)
        }
      )
    ))

  it('ends at the first tile with another content', () => {
    const cache = prefixCache(2 ** 20)
    const ids = [2, 1, 1, 3, 1, 1, 4, 5]
    const tile = (key: string) => ({ key, tokens: 2 })
    cache.put(promptOf(ids, [tile('a'), tile('b')]), rowOf(ids))
    const length = (tiles: readonly TileContent[], kind = '') => {
      const found = cache.take(promptOf(ids, tiles, kind))
      found?.release()
      return found?.length ?? 0
    }
    assert.deepEqual(
      [length([tile('a'), tile('b')]), length([tile('a'), tile('c')]), length([tile('c'), tile('b')]), length([])],
      [7, 4, 1, 7] // without tiles no image token tells an image apart
    )
    assert.equal(length([tile('a'), tile('b')], 'int8'), 0)
    cache.clear()
  })

  it('a prefix in use outlives its eviction', () => {
    const before = tf.memory().numTensors
    const cache = prefixCache(4 * bytesPerToken)
    cache.put(promptOf([2, 3, 4]), rowOf([2, 3, 4]))
    const found = cache.take(promptOf([2, 3, 9]))!
    cache.put(promptOf([5, 6, 7]), rowOf([5, 6, 7]))
    assert.equal(cache.size().entries, 1)
    assert.equal(found.cache.kv[0]!.key.dataSync().length, 6)
    found.release()
    cache.clear()
    assert.equal(tf.memory().numTensors, before)
  })
})

describe('turns between decoding steps', () => {
  it('prompts have all turns until their end, in order; searches have them in rotation', async () => {
    const log: string[] = []
    const turns = turnQueue(() => undefined)
    const work = async (name: string, kind: 'first' | 'rotate', pieces: number): Promise<void> => {
      const { pause } = turns.join(kind)
      for (let i = 0; i < pieces; i++) {
        await pause()
        log.push(name + i)
      }
    }
    const all = Promise.all([work('a', 'first', 2), work('b', 'first', 2), work('x', 'rotate', 2), work('y', 'rotate', 2)])
    while (!turns.isEmpty()) {
      turns.next()
      await tick()
    }
    await all
    assert.deepEqual(log, ['a0', 'x0', 'a1', 'y0', 'b0', 'x1', 'b1', 'y1'])
  })

  it('an abort ends the wait', async () => {
    const turns = turnQueue(() => undefined)
    const controller = new AbortController()
    const { pause } = turns.join('first', controller.signal)
    const paused = pause()
    controller.abort()
    await paused
    await pause()
    assert.ok(turns.isEmpty())
  })
})

describe('data for the process', () => {
  it('URLs become text and blobs become bytes; bytes and plain data stay', async () => {
    const request = {
      messages: [{ role: 'user', content: [{ type: 'image', url: new URL('https://example.com/a.png') }] }],
      images: [new Blob(['abc']), new Uint8Array([1, 2])],
      options: { topP: 0.5, missing: undefined }
    }
    const { value, loaded } = toPlainData(request, 'request')
    await loaded
    assert.deepEqual(value, {
      messages: [{ role: 'user', content: [{ type: 'image', url: 'https://example.com/a.png' }] }],
      images: [new Uint8Array([97, 98, 99]), new Uint8Array([1, 2])],
      options: { topP: 0.5, missing: undefined }
    })
    assert.equal(toPlainData({ a: 1 }, 'request').loaded, undefined)
  })

  it('functions and objects of a class are refused by their path', () => {
    assert.throws(() => toPlainData({ options: { decode: () => '' } }, 'request'), /request\.options\.decode: a function/)
    assert.throws(() => toPlainData({ images: [new Map()] }, 'request'), /request\.images\[0\]: an object of class Map/)
    const circular: Record<string, unknown> = {}
    circular.self = circular
    assert.throws(() => toPlainData(circular, 'request'), RangeError)
  })

  it('a record keeps a key __proto__ as data', () => {
    const { value } = toPlainData(JSON.parse('{"__proto__": {"x": 1}}') as object, 'request')
    assert.deepEqual([Object.keys(value), Object.getPrototypeOf(value)], [['__proto__'], Object.prototype])
  })

  it('options of the engine are checked by name', () => {
    assert.throws(() => engineSettings({ maxBatch: 0 }), /maxBatch: expected an integer from 1 to 256, got 0/)
    assert.throws(() => engineSettings({ prefixCacheBytes: 0.5 }), /prefixCacheBytes/)
    assert.equal(engineSettings({}).maxQueue, 64)
  })
})
