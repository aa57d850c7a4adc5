import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { readDataset } from '../../../generation/evaluate/eval-dataset.js'
import { orThrow } from '../../../lib/error.js'

const dir = mkdtempSync(join(tmpdir(), 'dataset-'))
const write = (...lines: readonly string[]): string => {
  const file = join(dir, 'set.jsonl')
  writeFileSync(file, lines.join('\n'))
  return file
}
const row = (value: string, rest: object = {}): string =>
  JSON.stringify({ id: 7, task: 't', conversations: [{ from: 'human', value }, { from: 'gpt', value: 'yes' }], ...rest }) // biome-ignore format: one row

describe('readDataset', () => {
  after(() => rmSync(dir, { recursive: true }))

  it('puts images and videos at their placeholders, with paths relative to the file', async () => {
    const file = write(
      row('<image>\nand <image>\nand <video>\nsame?', { image: ['a.png', '/b.png'], video: ['f1.png', 'f2.png'] }),
      ''
    )
    const [{ id, messages }] = (await orThrow(readDataset(file))) as [Awaited<ReturnType<typeof readRows>>[number]]
    assert.equal(id, '7')
    assert.deepEqual(messages[0]!.content, [
      { type: 'image', path: join(dir, 'a.png') },
      { type: 'text', text: 'and ' },
      { type: 'image', path: '/b.png' },
      { type: 'text', text: 'and ' },
      { type: 'video', frames: [join(dir, 'f1.png'), join(dir, 'f2.png')] },
      { type: 'text', text: 'same?' }
    ])
    assert.equal(messages[1]!.role, 'assistant')
  })

  it('reports every invalid line by file and line number', async () => {
    const file = write(
      row('fine'),
      '{',
      row('<image>\n'),
      row('x', { image: 'unused.png' }),
      '{"conversations": [{"from": "cat", "value": ""}]}'
    )
    const read = await readDataset(file)()
    assert.ok(E.isLeft(read))
    const says = read.left.map(({ message }) => message.slice(dir.length))
    assert.deepEqual(
      says.map((message) => Number(/^\/set\.jsonl:(\d)/.exec(message)?.[1])),
      [2, 3, 4, 5]
    )
    assert.match(says[1]!, /more <image> placeholders than images/)
    assert.match(says[3]!, /unknown speaker "cat"/)
  })

  it('a file without rows is an error', async () => {
    for (const lines of [[], ['', '  ']]) {
      const read = await readDataset(write(...lines))()
      assert.ok(E.isLeft(read) && read.left[0]._tag === 'DatasetEmpty' && /set\.jsonl: no rows/.test(read.left[0].message))
    }
  })

  it('names a missing file', async () => {
    const read = await readDataset(join(dir, 'none.jsonl'))()
    assert.ok(E.isLeft(read) && /none\.jsonl: cannot be read \(ENOENT\)/.test(read.left[0].message))
  })
})

const readRows = (file: string) => orThrow(readDataset(file))
