import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { demoModel } from '../../../../generation/checkpoint/load.js'
import { prefetch } from '../../../../generation/train/data/prefetch.js'
import type { Prepared, Recipe } from '../../../../generation/train/data/prepare.js'
import { InternVLError } from '../../../../lib/error.js'

const scenes = (from: number, to: number): Recipe[] =>
  Array.from({ length: to - from }, (_, i) => ({ row: { seed: 5, index: from + i } }))
const missing: Recipe = {
  row: { id: '1', task: 't', where: 'set.jsonl:1', messages: [{ role: 'user', content: [{ type: 'image', path: '/none.png' }] }, { role: 'assistant', content: 'x' }] } // biome-ignore format: one line
}
const preference: Recipe = {
  row: { id: '2', task: 't', rejected: 'no', messages: [{ role: 'user', content: 'q' }, { role: 'assistant', content: 'yes' }] } // biome-ignore format: one line
}

const all = async (batches: AsyncIterable<readonly Prepared[]>): Promise<(readonly Prepared[])[]> => {
  const made = []
  for await (const batch of batches) made.push(batch)
  return made
}

describe('prefetch', () => {
  const order = [scenes(0, 3), [preference], scenes(3, 4), scenes(4, 9), [], scenes(9, 11)]

  it('batches of threads are those of none, in their order, and no longer waited for once they are ahead', async () => {
    const [here, feed] = [
      await all(prefetch(order, { model: demoModel, workers: 0 })),
      prefetch(order, { model: demoModel, workers: 2, ahead: 3 })
    ]
    const there = []
    for await (const batch of feed) {
      there.push(batch)
      await sleep(60)
    }
    assert.deepEqual(there, here)
    assert.equal(there[1]![0]!.rejected!.labels.length, there[1]![0]!.rejected!.ids.length)
    const { firstMs, laterMs } = feed.waited()
    assert.ok(laterMs < firstMs, `${laterMs} ms for five batches, ${firstMs} for the first`)
  })

  it('what cannot be made is told in its turn, or left out and counted', async () => {
    const bad = [scenes(0, 1), [missing, ...scenes(1, 2), missing]]
    for (const workers of [0, 1]) {
      let turns = 0
      await assert.rejects(
        async () => {
          for await (const _ of prefetch(bad, { model: demoModel, workers })) turns++
        },
        (error) => error instanceof InternVLError && error.issues.length === 2 && /set\.jsonl:1: .*none\.png/.test(error.message)
      )
      assert.equal(turns, 1)
      const feed = prefetch(bad, { model: demoModel, workers: 0, skipBad: true })
      assert.deepEqual(
        (await all(feed)).map((batch) => batch.length),
        [1, 1]
      )
      assert.equal(feed.skipped().length, 2)
    }
  })

  it('says what is wrong with the folder, and refuses numbers that make no sense', async () => {
    await assert.rejects(all(prefetch([scenes(0, 1)], { model: '/none', workers: 0 })), InternVLError)
    assert.throws(() => prefetch([], { model: demoModel, workers: -1 }), RangeError)
    assert.throws(() => prefetch([], { model: demoModel, ahead: 0 }), RangeError)
  })

  it('threads end with the loop, though the order has no end', async () => {
    function* endless() {
      for (let i = 0; ; i++) yield scenes(i, i + 1)
    }
    const before = process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length
    for await (const _ of prefetch(endless(), { model: demoModel })) break
    await sleep(20)
    assert.equal(process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length, before)
  })
})
