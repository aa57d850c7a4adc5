import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { isJsonArray, readDataset } from '../../../generation/evaluate/eval-dataset.js'
import { orThrow } from '../../../lib/error.js'
import { imagePath } from '../../processors/cases.js'

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
      row('<image>x', { image: ['a.png', 'unused.png'] }),
      '{"conversations": [{"from": "cat", "value": ""}]}',
      row('which?', { options: Array(27).fill('a') }),
      row('which?', { choices: { a: 'x' } }),
      row('which?', { options: [] })
    )
    const read = await readDataset(file)()
    assert.ok(E.isLeft(read))
    const says = read.left.map(({ message }) => message.slice(dir.length))
    assert.deepEqual(
      says.map((message) => Number(/^\/set\.jsonl:(\d)/.exec(message)?.[1])),
      [2, 3, 4, 5, 6, 7]
    )
    assert.match(says[1]!, /more <image> placeholders than images/)
    assert.match(says[3]!, /unknown speaker "cat"/)
    for (const text of says.slice(4)) assert.match(text, /options should be at most 26 texts or numbers/)
  })

  const image = (name: string) => ({ type: 'image', path: join(dir, name) })
  const text = (value: string) => ({ type: 'text', text: value })
  const one = async (value: object) => (await readRows(write(JSON.stringify(value))))[0]!
  const firstContent = async (value: object) => (await one(value)).messages[0]!.content

  it('an image or video without placeholder comes before the first message of the user, as in the loaders of OpenGVLab', async () => {
    const conversations = [{ from: 'human', value: 'What?' }, { from: 'gpt', value: 'This.' }] // biome-ignore format: one row
    assert.deepEqual(await firstContent({ image: 'a.png', conversations }), [image('a.png'), text('What?')])
    const video = { type: 'video', path: join(dir, 'v.mp4') }
    assert.deepEqual(await firstContent({ video: 'v.mp4', conversations }), [video, text('What?')])
    const system = [{ from: 'system', value: 'Be brief.' }, ...conversations]
    assert.deepEqual((await one({ image: ['a.png'], conversations: system })).messages[1]!.content, [
      image('a.png'),
      text('What?')
    ])
    const later = [...conversations, { from: 'human', value: '<image>\nAnd?' }, { from: 'gpt', value: 'That.' }]
    assert.deepEqual((await one({ image: 'a.png', conversations: later })).messages[2]!.content, [image('a.png'), text('And?')])
    const question = { image: 'a.png', question: 'What?', chosen: 'This.', rejected: 'That.' } // MMPR
    assert.deepEqual(await firstContent(question), [image('a.png'), text('What?')])
  })

  it('an empty image or video means a row of text', async () => {
    const conversations = [{ from: 'human', value: 'What?' }, { from: 'gpt', value: 'This.' }] // biome-ignore format: one row
    for (const media of [{ image: '' }, { video: '' }, { image: '', video: '' }, { image: [] }, { image: null, video: null }])
      assert.deepEqual(await firstContent({ ...media, conversations }), [text('What?')])
    assert.deepEqual(await firstContent({ image: '', video: 'v.mp4', conversations }), [
      { type: 'video', path: join(dir, 'v.mp4') },
      text('What?')
    ])
  })

  it('reads JSON arrays as LLaVA has them, and names bad rows by index', async () => {
    const rows = [JSON.parse(row('<image>\nx', { image: 'a.png' })), JSON.parse(row('y'))]
    for (const source of [JSON.stringify(rows), `\uFEFF\n${JSON.stringify(rows, null, 2)}`]) {
      const read = await readRows(write(source))
      assert.deepEqual(
        read.map(({ messages }) => messages[0]!.content),
        [[image('a.png'), text('x')], [text('y')]]
      )
      assert.equal(await isJsonArray(join(dir, 'set.jsonl')), true)
    }
    const bad = await readDataset(write(JSON.stringify([rows[0], 3])))()
    assert.ok(E.isLeft(bad) && /set\.jsonl\[1\]: not a JSON object/.test(bad.left[0].message))
    const broken = await readDataset(write('[{]'))()
    assert.ok(E.isLeft(broken) && /set\.jsonl: not JSON/.test(broken.left[0].message))
    assert.equal(await isJsonArray(write('{}')), false)
    assert.equal(await isJsonArray(join(dir, 'none.json')), false)
  })

  it('reads Hugging Face messages: placeholders in content lists and texts, sources in items, images by path', async () => {
    const answer = { role: 'assistant', content: [text('This.')] }
    const user = { role: 'user', content: [text('Compare'), { type: 'image' }, { type: 'image', url: 'https://x/b.png' }] }
    const list = { images: [{ path: 'a.png', bytes: null }], messages: [{ role: 'system', content: 'Brief.' }, user, answer] }
    const { messages } = await one(list)
    assert.deepEqual(messages.map(({ role }) => role), ['system', 'user', 'assistant']) // biome-ignore format: one line
    assert.deepEqual(messages[1]!.content, [text('Compare'), image('a.png'), { type: 'image', url: 'https://x/b.png' }])
    const plain = {
      images: ['a.png', 'b.png'],
      videos: ['v.mp4'],
      messages: [{ role: 'user', content: '<image>and <image>?' }, answer]
    }
    assert.deepEqual(await firstContent(plain), [
      { type: 'video', path: join(dir, 'v.mp4') },
      ...[image('a.png'), text('and '), image('b.png'), text('?')]
    ])
    const tool = { role: 'assistant', content: null, tool_calls: [{ name: 'f' }] }
    const called = await one({ messages: [{ role: 'user', content: 'q' }, tool, { role: 'tool', content: '1' }, answer] })
    assert.deepEqual(called.messages[1], { role: 'assistant', content: [], tool_calls: [{ name: 'f' }] })
  })

  it("reads TRL's preference rows, as texts, as messages, and with the prompt in both answers", async () => {
    const [chosen, rejected] = [
      { role: 'assistant', content: 'Blue.' },
      { role: 'assistant', content: [text('Green.')] }
    ]
    const prompt = { role: 'user', content: 'The sky is' }
    const rows = [
      { prompt: 'The sky is', chosen: 'Blue.', rejected: 'Green.' },
      { prompt: [prompt], chosen: [chosen], rejected: [rejected] },
      { chosen: [prompt, chosen], rejected: [prompt, rejected] }
    ]
    for (const value of rows) {
      const { messages, rejected } = await one({ ...value, images: ['a.png'] })
      assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']) // biome-ignore format: one line
      assert.deepEqual(messages.map(({ content }) => content), [[image('a.png'), text('The sky is')], [text('Blue.')]]) // biome-ignore format: one line
      assert.equal(rejected, 'Green.')
    }
    const { messages } = await one({ prompt: 'The sky is', completion: 'blue.' })
    assert.deepEqual(messages[1]!.content, [text('blue.')])
    for (const value of [{ chosen: 'a', rejected: 'b' }, { chosen: [chosen], rejected: [rejected] }, { chosen: [prompt, chosen], rejected: [chosen, rejected] }, { prompt: 'p', chosen: [chosen, prompt, chosen], rejected: 'x' }]) // biome-ignore format: one line
      assert.ok(E.isLeft(await readDataset(write(JSON.stringify(value)))()), JSON.stringify(value))
  })

  it('leaves base64 and data URLs as they are', async () => {
    const base64 = readFileSync(imagePath('rgb.png')).toString('base64')
    const sources = [base64, `data:image/png;base64,${base64}`]
    const [only] = await orThrow(readDataset(write(row('<image><image>', { image: sources }))))
    assert.deepEqual(
      (only!.messages[0]!.content as readonly { readonly path?: string }[]).flatMap(({ path }) => path ?? []),
      sources
    )
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
