import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { epochRows, readMixture, readTrainingData } from '../../../../generation/train/data/mixture.js'
import { orThrow } from '../../../../lib/error.js'
import { check } from '../../../laws/check.js'

const dir = mkdtempSync(join(tmpdir(), 'meta-'))
const write = (name: string, value: string): string => {
  writeFileSync(join(dir, name), value)
  return join(dir, name)
}
const line = (value: string, answer = 'yes', more: object = {}): string =>
  JSON.stringify({ conversations: [{ from: 'human', value }, { from: 'gpt', value: answer }], ...more }) // biome-ignore format: one line

describe('mixture files', () => {
  before(() => {
    mkdirSync(join(dir, 'images'))
    write('images/a.png', 'not opened')
    write('one.jsonl', [line('<image>\nq', 'yes', { image: 'a.png' }), line('b')].join('\n'))
    write('two.jsonl', [line('c'), line('d', ' '), '{'].join('\n'))
  })
  after(() => rmSync(dir, { recursive: true }))

  it('list datasets with their folders, flags and repeats', async () => {
    const meta = { images: { root: 'images', annotation: 'one.jsonl', repeat_time: 1.5, data_augment: true, length: 2, max_dynamic_patch: 6, conv_style: 'x' }, text: { annotation: ['one.jsonl', 'one.jsonl'], root: 'images' } } // biome-ignore format: one line
    const data = await orThrow(readTrainingData(await orThrow(readMixture(write('meta.json', JSON.stringify(meta))))))
    assert.equal(data.rows.length, 6)
    assert.deepEqual(data.repeats, [1.5, 1.5, 1, 1, 1, 1])
    assert.deepEqual(data.rows.map(({ augment, dataset, maxPatches }) => [augment, dataset, maxPatches]).slice(1, 3), [[true, 'images', 6], [false, 'text', undefined]]) // biome-ignore format: one line
    assert.deepEqual(data.rows[0]!.messages[0]!.content, [{ type: 'image', path: join(dir, 'images', 'a.png') }, { type: 'text', text: 'q' }]) // biome-ignore format: one line
  })

  it('report all errors of files and rows by file and line; skipBad continues with the valid rows', async () => {
    const wrong = write('wrong.json', JSON.stringify({ a: { root: 3, annotation: 'x', repeat_time: 0 }, b: {}, c: 7 }))
    const read = await readMixture(wrong)()
    assert.ok(E.isLeft(read))
    assert.deepEqual(read.left.map(({ message }) => /json: ([\w.]+):/.exec(message)?.[1]), ['a.root', 'a.repeat_time', 'b.annotation', 'c']) // biome-ignore format: one line
    for (const text of ['', '{}', '[]']) assert.ok(E.isLeft(await readMixture(write('none.json', text))()))
    assert.ok(E.isLeft(await readMixture(join(dir, 'missing.json'))()))
    const entries = await orThrow(readMixture(write('bad.json', JSON.stringify({ t: { annotation: 'two.jsonl' }, u: { annotation: 'gone.jsonl' } })))) // biome-ignore format: one line
    const refused = await readTrainingData(entries)()
    assert.ok(E.isLeft(refused))
    const says = refused.left.map(({ message }) => message.slice(dir.length + 1))
    assert.deepEqual(says.map((message) => message.split(': ')[0]).sort(), ['gone.jsonl', 'two.jsonl:2', 'two.jsonl:3'])
    const { rows, skipped } = await orThrow(readTrainingData(entries, { skipBad: true }))
    assert.deepEqual([rows.length, skipped.length], [1, 3])
    assert.ok(E.isLeft(await readTrainingData(entries.slice(1), { skipBad: true })()))
    const short = await orThrow(readMixture(write('short.json', JSON.stringify({ t: { root: 'images', annotation: 'one.jsonl', length: 9 } })))) // biome-ignore format: one line
    const counted = await readTrainingData(short)()
    assert.ok(E.isLeft(counted) && /length is 9 .* 2 in/.test(counted.left[0].message))
  })

  it('an epoch contains a row as often as its repeats; a fraction selects that share of the rows, other rows each epoch', () =>
    check(
      fc.tuple(fc.array(fc.constantFrom(0.25, 1, 1.5, 2), { maxLength: 40 }), fc.nat(), fc.nat(5)),
      ([repeats, seed, epoch]) => {
        const rows = epochRows(repeats, seed, epoch)
        assert.deepEqual(rows, epochRows(repeats, seed, epoch))
        for (const times of new Set(repeats)) {
          const of = rows.filter((i) => repeats[i] === times)
          const n = repeats.filter((t) => t === times).length
          assert.equal(of.length, Math.floor(times) * n + Math.round((times % 1) * n))
          const counts = [...repeats.keys()].filter((i) => repeats[i] === times).map((i) => of.filter((j) => j === i).length)
          assert.ok(counts.every((c) => c === Math.floor(times) || c === Math.ceil(times)))
        }
      }
    ))
})
