import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { exampleConfig, nearest, readTrainConfig, trainConfig, withoutComments } from '../../../generation/train/train-config.js'
import { aliases, settings } from '../../../generation/train/train-settings.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'

const least = { output: 'out', data: 'a.jsonl' }

describe('training settings', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'settings-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  it('the example file equals the defaults and lists every setting', () => {
    const example = getOrThrow(trainConfig(JSON.parse(withoutComments(exampleConfig(least)))))
    assert.deepEqual(example, getOrThrow(trainConfig(least)))
    assert.deepEqual(Object.keys(example), Object.keys(settings))
  })

  it('comments and trailing commas are removed, except in strings', () =>
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom('// a "b" /*\n', '/* // " \n, */', ' '), (value, comment) => {
        const text = JSON.stringify({ value, list: [1, 'x, ]'] }, null, 2)
          .replaceAll('\n', `${comment}\n`)
          .replace(/\n\}$/, ',\n}')
        assert.deepEqual(JSON.parse(withoutComments(text)), JSON.parse(JSON.stringify({ value, list: [1, 'x, ]'] })))
      }),
      { examples: [[{ url: 'https://x/*y*/,}' }, ' ']] }
    ))

  it('reports all errors at once, and for an unknown key the nearest setting', () => {
    const found = trainConfig({ data: 3, lora: { rank: 0, alfa: 2 }, optimizer: { learningRate: 'fast' } }, 'train.json')
    assert.ok(found._tag === 'Left')
    assert.deepEqual(
      found.left.map(({ message }) => message),
      [
        'train.json: lora.alfa: no such setting; did you mean lora.alpha? The other settings of this section are lora.rank, lora.dropout, lora.targetModules, lora.useDora, lora.useRslora, lora.bias',
        'train.json: output is missing: expected a string',
        'train.json: data: expected a string, or a list, each a string, got 3',
        'train.json: lora.rank: expected a positive integer, got 0',
        'train.json: optimizer.learningRate: expected a positive number, got "fast"'
      ]
    )
  })

  it('assignments override the file', async () => {
    const file = join(folder, 'train.json')
    await writeFile(file, '{ "output": "out", /* mine */ "data": "a.jsonl", "lora": { "rank": 4 } }')
    const config = await orThrow(readTrainConfig(file, ['lora.rank=8', 'optimizer.learningRate=2e-5', 'model=some/name']))
    assert.deepEqual([config['lora.rank'], config['optimizer.learningRate'], config.model], [8, 2e-5, 'some/name'])
    const wrong = await readTrainConfig(file, ['lora.rank'])()
    assert.ok(wrong._tag === 'Left' && /--set lora.rank: expected key=value/.test(wrong.left[0].message))
    const missing = await readTrainConfig(join(folder, 'none.json'))()
    assert.ok(missing._tag === 'Left' && /train --init/.test(missing.left[0].message))
  })

  it('reads the names of before 0.2, in files, assignments and checkpoints', async () => {
    const values: Readonly<Record<string, unknown>> = {
      heldOut: 'v.jsonl', // an alias
      ...{ checkpointing: true, 'lora.targets': ['a.*'], 'loss.kind': 'dpo' },
      ...{ 'batch.accumulation': 7, 'batch.grouped': true, 'batch.jpeg': true },
      ...{ 'optimizer.rate': 0.5, 'optimizer.warmup': 0.5, 'optimizer.clip': 0.5 },
      ...{ 'save.every': 7, 'save.keep': 7, 'evaluate.every': 7, 'log.every': 7 }
    }
    assert.deepEqual(Object.keys(values), Object.keys(aliases))
    for (const [old, name] of Object.entries(aliases))
      assert.deepEqual(getOrThrow(trainConfig({ ...least, [old]: values[old] }))[name], values[old], old)
    const file = join(folder, 'old.json')
    await writeFile(file, '{ "output": "out", "data": "a.jsonl", "optimizer": { "learningRate": 1, "clip": 2 } }')
    const config = await orThrow(readTrainConfig(file, ['optimizer.rate=2e-5']))
    assert.deepEqual([config['optimizer.learningRate'], config['optimizer.maxGradNorm']], [2e-5, 2])
  })

  it('a name is nearest to itself', () =>
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(settings)), (name) => assert.equal(nearest(name, Object.keys(settings)), name))
    ))
})
