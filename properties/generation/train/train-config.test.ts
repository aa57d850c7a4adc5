import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { nearest } from '../../../generation/train/nearest.js'
import { exampleConfig, fields, readTrainConfig, trainConfig, withoutComments } from '../../../generation/train/train-config.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'

const least = { output: 'out', data: 'a.jsonl' }

describe("a run's settings", () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'settings-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  it('the example reads as the defaults, and names every setting', () => {
    const example = getOrThrow(trainConfig(JSON.parse(withoutComments(exampleConfig(least)))))
    assert.deepEqual(example, getOrThrow(trainConfig(least)))
    assert.deepEqual(Object.keys(example), Object.keys(fields))
  })

  it('comments and trailing commas are no part of JSON, but stay in texts', () =>
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom('// a "b" /*\n', '/* // " \n, */', ' '), (value, comment) => {
        const text = JSON.stringify({ value, list: [1, 'x, ]'] }, null, 2)
          .replaceAll('\n', `${comment}\n`)
          .replace(/\n\}$/, ',\n}')
        assert.deepEqual(JSON.parse(withoutComments(text)), JSON.parse(JSON.stringify({ value, list: [1, 'x, ]'] })))
      }),
      { examples: [[{ url: 'https://x/*y*/,}' }, ' ']] }
    ))

  it('tells all that is wrong at once, an unknown key with the nearest known one', () => {
    const found = trainConfig({ data: 3, lora: { rank: 0, alfa: 2 }, optimizer: { rate: 'fast' } }, 'train.json')
    assert.ok(found._tag === 'Left')
    assert.deepEqual(
      found.left.map(({ message }) => message),
      [
        'train.json: lora.alfa: no such setting; the nearest is lora.alpha, and there are lora.rank, lora.dropout, lora.targets',
        'train.json: output is missing; it is a text',
        'train.json: data should be a text, or a list, each a text; it is 3',
        'train.json: lora.rank should be a positive integer; it is 0',
        'train.json: optimizer.rate should be a positive number; it is "fast"'
      ]
    )
  })

  it('takes assignments that have the last word', async () => {
    const file = join(folder, 'train.json')
    await writeFile(file, '{ "output": "out", /* mine */ "data": "a.jsonl", "lora": { "rank": 4 } }')
    const config = await orThrow(readTrainConfig(file, ['lora.rank=8', 'optimizer.rate=2e-5', 'model=some/name']))
    assert.deepEqual([config['lora.rank'], config['optimizer.rate'], config.model], [8, 2e-5, 'some/name'])
    const wrong = await readTrainConfig(file, ['lora.rank'])()
    assert.ok(wrong._tag === 'Left' && /--set lora.rank: it should read key=value/.test(wrong.left[0].message))
    const missing = await readTrainConfig(join(folder, 'none.json'))()
    assert.ok(missing._tag === 'Left' && /train --init/.test(missing.left[0].message))
  })

  it('a name is nearest to itself', () =>
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(fields)), (name) => assert.equal(nearest(name, Object.keys(fields)), name))
    ))
})
