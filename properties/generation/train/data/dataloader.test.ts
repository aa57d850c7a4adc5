import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { demoModel } from '../../../../generation/checkpoint/load.js'
import { countBatches, type DataLoaderOptions, dataLoader } from '../../../../generation/train/data/dataloader.js'
import type { TrainingData, TrainingRow } from '../../../../generation/train/data/mixture.js'
import { encodeSample, sampleSize } from '../../../../generation/train/data/sample.js'
import type { PreparedSample } from '../../../../generation/train/data/sample-maker.js'
import { sampleSizes } from '../../../../generation/train/data/sample-sizes.js'
import { trainConfig } from '../../../../generation/train/train-config.js'
import { getOrThrow, InternVLError, orThrow } from '../../../../lib/error.js'
import { loadProcessor, type Processor } from '../../../../processors/processor.js'

const circle = fileURLToPath(new URL('../../../../generation/demo/circle.png', import.meta.url))
const rowOf = (i: number, path?: string): TrainingRow => ({
  ...{ id: `${i}`, task: 't', dataset: 'd', augment: false, where: `set.jsonl:${i}` },
  messages: [
    { role: 'user', content: [...(path ? [{ type: 'image', path } as const] : []), { type: 'text', text: 'How many?' }] },
    { role: 'assistant', content: 'one '.repeat(1 + ((i * 7) % 11)) }
  ]
})
const dataOf = (rows: readonly TrainingRow[]): TrainingData => ({ rows, repeats: rows.map(() => 1), skipped: [] })

describe('dataLoader', () => {
  let processor: Processor
  let measured: TrainingData
  const optionsOf = (batch: object, rest: Partial<DataLoaderOptions> = {}): DataLoaderOptions => {
    const config = getOrThrow(trainConfig({ output: 'o', data: 'd', batch: { size: 2, maxLength: 60, ...batch } }))
    return { model: demoModel, workers: 0, config, ...rest }
  }
  const take = async (data: TrainingData, options: DataLoaderOptions, n: number, from = 0) => {
    const taken: (readonly PreparedSample[] | undefined)[] = []
    for await (const prepared of dataLoader(data, options)(from)) if (taken.push(prepared) === n) break
    return taken
  }
  const shown = (batch: readonly PreparedSample[] | undefined) => batch?.map(({ sample, group }) => [sample.id, group])

  before(async () => {
    processor = await orThrow(loadProcessor(demoModel))
    const rows = [...Array.from({ length: 12 }, (_, i) => rowOf(i)), rowOf(12, circle)]
    const data = { ...dataOf(rows), repeats: rows.map((_, i) => (i < 6 ? 1.5 : 1)) }
    measured = await orThrow(sampleSizes(processor, data, optionsOf({ packing: true })))
  })

  it('computes sample sizes without decoding images', async () => {
    for (const [i, row] of measured.rows.entries()) {
      const { ids, numPatches } = await orThrow(encodeSample(processor, row, { maxLength: 60 }))
      assert.deepEqual(measured.sizes![i], { tokens: ids.length, tiles: numPatches.reduce((a, b) => a + b, 0) })
    }
    const pair = { ...rowOf(1), rejected: 'one '.repeat(20) }
    const longer = await orThrow(encodeSample(processor, { ...pair, messages: [pair.messages[0]!, { role: 'assistant', content: pair.rejected }] })) // biome-ignore format: one line
    assert.equal((await orThrow(sampleSize(processor, pair))).tokens, longer.ids.length)
  })

  for (const batch of [{}, { packing: true }, { packing: true, maxTiles: 1 }, { grouped: true }])
    it(`an epoch contains each row as often as its repeats, and a run resumes from any batch (${JSON.stringify(batch)})`, async () => {
      const options = optionsOf(batch)
      const perEpoch = [1, 2, 3].map((epochs) => countBatches(measured, options, epochs))
      const all = (await take(measured, options, perEpoch[2]!)).map(shown)
      for (const [e, end] of perEpoch.entries()) {
        const ids = all.slice(perEpoch[e - 1] ?? 0, end).flatMap((batch) => batch!.map(([id]) => id))
        assert.equal(ids.length, 16)
        for (const { id } of measured.rows) assert.ok([1, 2].includes(ids.filter((other) => other === id).length))
      }
      for (const from of [1, perEpoch[0]! - 1, perEpoch[0]!, perEpoch[1]! + 1])
        assert.deepEqual((await take(measured, options, all.length - from, from)).map(shown), all.slice(from))
      const groups = (entry: (typeof all)[number]) => new Set(entry!.map(([, group]) => group)).size
      assert.ok(all.every((entry) => groups(entry) <= ('packing' in batch ? 2 : 1)))
      if ('packing' in batch) assert.ok(perEpoch[0]! < 8, `${perEpoch}`)
    })

  it('a fraction of an epoch has this fraction of its batches', () => {
    const options = optionsOf({})
    assert.equal(countBatches(measured, options, 0.5), 4)
    assert.equal(countBatches(measured, options, 2.25), 18)
  })

  it('sampleSizes reports rows that give no sample; skipBad skips them, unless no row is left', async () => {
    const bad = dataOf([rowOf(1), rowOf(2, fileURLToPath(import.meta.url)), { ...rowOf(3), messages: [{ role: 'user', content: 'one '.repeat(70) }, { role: 'assistant', content: 'x' }] }]) // biome-ignore format: one line
    const refused = await sampleSizes(processor, bad, optionsOf({}))()
    assert.ok(E.isLeft(refused))
    assert.deepEqual(refused.left.map(({ _tag, where }) => [_tag, where]), [['NotAnImage', 'set.jsonl:2'], ['TooLong', 'set.jsonl:3']]) // biome-ignore format: one line
    const { rows, sizes, skipped } = await orThrow(sampleSizes(processor, bad, { ...optionsOf({}), skipBad: true }))
    assert.deepEqual([rows.length, sizes!.length, skipped.length], [1, 1, 2])
    assert.ok(E.isLeft(await sampleSizes(processor, dataOf(bad.rows.slice(1)), { ...optionsOf({}), skipBad: true })()))
  })

  it('skipBad continues after a batch of bad rows, and throws after an epoch of bad rows', async () => {
    const rows = Array.from({ length: 6 }, (_, i) => rowOf(i, i < 4 ? '/none.png' : undefined))
    const reported: unknown[] = []
    const options = optionsOf(
      { size: 1 },
      { skipBad: true, onSkipped: (issues) => reported.push(...issues.map(({ where }) => where)) }
    )
    const taken = await take(dataOf(rows), options, 6)
    assert.equal(taken.filter((batch) => batch === undefined).length, 4)
    assert.deepEqual(
      reported.sort(),
      [0, 1, 2, 3].map((i) => `set.jsonl:${i}`)
    )
    assert.deepEqual((await take(dataOf(rows), options, 3, 3)).map(shown), taken.slice(3).map(shown))
    await assert.rejects(
      take(dataOf(rows.slice(0, 4)), options, 5),
      (e) => e instanceof InternVLError && /last epoch/.test(e.message)
    )
  })

  it('packing without sample sizes is a RangeError', async () => {
    await assert.rejects(take(dataOf([rowOf(1)]), optionsOf({ packing: true }), 1), RangeError)
  })
})
