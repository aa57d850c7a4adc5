import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { demoModel } from '../../../../generation/checkpoint/load.js'
import { sceneMakerModule } from '../../../../generation/demo/scene-samples.js'
import { sceneSample } from '../../../../generation/demo/scenes.js'
import { prefetch } from '../../../../generation/train/data/prefetch.js'
import type { PreparedSample, SampleSpec } from '../../../../generation/train/data/sample-maker.js'
import { InternVLError } from '../../../../lib/error.js'

const scenes = (from: number, to: number): SampleSpec[] =>
  Array.from({ length: to - from }, (_, i) => ({ row: sceneSample(5, from + i), options: { maxPatches: 1 } }))
const missing: SampleSpec = {
  row: { id: '1', task: 't', where: 'set.jsonl:1', messages: [{ role: 'user', content: [{ type: 'image', path: '/none.png' }] }, { role: 'assistant', content: 'x' }] } // biome-ignore format: one line
}
const preference: SampleSpec = {
  row: { id: '2', task: 't', rejected: 'no', messages: [{ role: 'user', content: 'q' }, { role: 'assistant', content: 'yes' }] } // biome-ignore format: one line
}

const all = async (batches: AsyncIterable<readonly PreparedSample[]>): Promise<(readonly PreparedSample[])[]> => {
  const made = []
  for await (const batch of batches) made.push(batch)
  return made
}

describe('prefetch', () => {
  const order = [scenes(0, 3), [preference], scenes(3, 4), scenes(4, 9), [], scenes(9, 11)]

  it('worker threads make the same batches in the same order, and the caller does not wait once they are ahead', async () => {
    const [inline, prefetched] = [
      await all(prefetch(order, { model: demoModel, workers: 0 })),
      prefetch(order, { model: demoModel, workers: 2, ahead: 3 })
    ]
    const threaded = []
    for await (const batch of prefetched) {
      threaded.push(batch)
      await sleep(60)
    }
    assert.deepEqual(threaded, inline)
    assert.equal(threaded[1]![0]!.rejected!.labels.length, threaded[1]![0]!.rejected!.ids.length)
    const { firstMs, laterMs } = prefetched.waited()
    assert.ok(laterMs < firstMs, `${laterMs} ms for five batches, ${firstMs} for the first`)
  })

  it('imports the sample maker of another module, in worker threads and without', async () => {
    const specs = [
      [{ seed: 5, index: 0 }],
      [
        { seed: 5, index: 1 },
        { seed: 5, index: 2 }
      ]
    ]
    const rows = await all(prefetch([scenes(0, 1), scenes(1, 3)], { model: demoModel, workers: 0 }))
    for (const workers of [0, 1])
      assert.deepEqual(await all(prefetch(specs, { model: demoModel, maker: sceneMakerModule, workers })), rows)
    const noMaker = new URL('../../../../lib/shape.ts', import.meta.url).href
    await assert.rejects(all(prefetch(specs, { model: demoModel, maker: noMaker, workers: 0 })), /must export makeSample/)
  })

  it('training imports nothing from the demo', async () => {
    const folder = fileURLToPath(new URL('../../../../generation/train', import.meta.url))
    const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.ts'))
    for (const name of files) assert.doesNotMatch(await readFile(join(folder, name), 'utf8'), /from '[^']*\/demo\//, name)
  })

  it('a sample that cannot be made throws in its turn, or is skipped and reported', async () => {
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
      const skipping = prefetch(bad, { model: demoModel, workers: 0, skipBad: true })
      assert.deepEqual(
        (await all(skipping)).map((batch) => batch.length),
        [1, 1]
      )
      assert.equal(skipping.skipped().length, 2)
    }
  })

  it('refuses a folder without a checkpoint, and invalid numbers', async () => {
    await assert.rejects(all(prefetch([scenes(0, 1)], { model: '/none', workers: 0 })), InternVLError)
    assert.throws(() => prefetch([], { model: demoModel, workers: -1 }), RangeError)
    assert.throws(() => prefetch([], { model: demoModel, ahead: 0 }), RangeError)
  })

  it('threads end with the loop, even if the order is endless', async () => {
    function* endless() {
      for (let i = 0; ; i++) yield scenes(i, i + 1)
    }
    const before = process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length
    for await (const _ of prefetch(endless(), { model: demoModel })) break
    await sleep(20)
    assert.equal(process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length, before)
  })
})
