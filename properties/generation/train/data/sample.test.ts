import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { demoModel } from '../../../../generation/checkpoint/load.js'
import { sceneSample } from '../../../../generation/demo/scenes.js'
import { parseRow, readRows } from '../../../../generation/evaluate/eval-dataset.js'
import { checkRows } from '../../../../generation/train/data/check-rows.js'
import { collate, disposeBatch, padIdOf } from '../../../../generation/train/data/collate.js'
import { encodePreference, encodeSample, type Sample } from '../../../../generation/train/data/sample.js'
import { getOrThrow, orThrow } from '../../../../lib/error.js'
import { tf } from '../../../../lib/tf.js'
import { encodePng } from '../../../../processors/image/draw.js'
import { loadProcessor, type Processor } from '../../../../processors/processor.js'

interface Made {
  readonly turns: ReadonlyArray<{ readonly from: string; readonly value: string }>
  readonly ids: readonly number[]
  readonly labels: readonly number[]
}

const made = JSON.parse(readFileSync(new URL('labels.json', import.meta.url), 'utf8')) as readonly Made[]
const dir = mkdtempSync(join(tmpdir(), 'sample-'))
const pad = (values: Iterable<number>, L: number, filler: number, side: 'left' | 'right') => {
  const filling = Array<number>(L - [...values].length).fill(filler)
  return side === 'left' ? [...filling, ...values] : [...values, ...filling]
}

describe('samples', () => {
  let processor: Processor
  before(async () => {
    processor = await orThrow(loadProcessor(demoModel))
    writeFileSync(join(dir, 'a.png'), await encodePng({ data: new Uint8Array(40 * 30 * 3).fill(99), width: 40, height: 30 }))
  })
  after(() => rmSync(dir, { recursive: true }))
  const rowOf = (turns: Made['turns'], more: object = {}) => {
    const image = turns.flatMap(({ value }) => [...value.matchAll(/<image>/g)].map(() => 'a.png'))
    return getOrThrow(parseRow(JSON.stringify({ image, conversations: turns, ...more }), 'set.jsonl:3', dir))
  }

  for (const [i, { turns, ids, labels }] of made.entries())
    it(`ids and labels are those of OpenGVLab's preprocessing: conversation ${i + 1}`, async () => {
      const made = await orThrow(encodeSample(processor, rowOf(turns)))
      assert.deepEqual([...made.ids], ids)
      assert.deepEqual([...made.labels], labels)
    })

  it('the supervised tokens are the answer and its end; the tokens before are the prompt, with its pixels', async () => {
    const end = processor.tokenizer.idOf('<|im_end|>')!
    for (let i = 0; i < 25; i++) {
      const row = sceneSample(3, i)
      const { ids, labels, pixels, numPatches } = await orThrow(encodeSample(processor, row))
      const inputs = await orThrow(processor.prepare([row.messages.slice(0, -1)]))
      const supervised = [...labels].filter((label) => label !== -100)
      assert.equal(processor.decode(supervised.slice(0, -1)), row.messages[1]!.content)
      assert.equal(supervised.at(-1), end)
      const prompt = inputs.inputIds.dataSync()
      assert.deepEqual([...ids.subarray(0, prompt.length)], [...prompt])
      assert.equal(labels[prompt.length], ids[prompt.length])
      assert.deepEqual([...pixels], [...(inputs.pixelValues?.dataSync() ?? [])])
      assert.deepEqual(numPatches, inputs.numPatches)
      tf.dispose([inputs.inputIds, inputs.attentionMask, ...(inputs.pixelValues ? [inputs.pixelValues] : [])])
    }
  })

  it('a batch holds its samples, padded on either side', async () => {
    const padId = padIdOf(processor.tokenizer)
    const samples: Sample[] = []
    for (let i = 0; i < 4; i++) samples.push(await orThrow(encodeSample(processor, sceneSample(1, i))))
    const before = tf.memory().numTensors
    for (const side of ['left', 'right'] as const) {
      const batch = collate(samples, { padId, side, reduction: 'square' })
      const L = batch.inputIds.shape[1]
      for (const [b, { ids, labels }] of samples.entries()) {
        const row = (t: tf.Tensor2D) => (t.arraySync() as number[][])[b]
        assert.deepEqual(row(batch.inputIds), pad(ids, L, padId, side))
        assert.deepEqual(
          row(batch.attentionMask),
          pad(
            ids.map(() => 1),
            L,
            0,
            side
          )
        )
        assert.deepEqual(row(batch.labels), pad(labels, L, -100, side))
        const weight = labels.filter((label) => label !== -100).length ** -0.5
        const weights = row(batch.lossWeights)!.map((w, i) => [w, row(batch.labels)![i] === -100 ? 0 : weight] as const)
        assert.ok(weights.every(([w, expected]) => Math.abs(w - expected) < 1e-6))
      }
      assert.deepEqual(
        [...(batch.pixelValues?.dataSync() ?? [])],
        samples.flatMap(({ pixels }) => [...pixels])
      )
      disposeBatch(batch)
    }
    assert.equal(tf.memory().numTensors, before)
  })

  it('a long sample is truncated at its end, but never inside an image or before the answer', async () => {
    const row = rowOf([...made[0]!.turns, { from: 'human', value: '<image>\nand?' }, { from: 'gpt', value: 'Yes.' }])
    const whole = await orThrow(encodeSample(processor, row))
    const cut = await orThrow(encodeSample(processor, row, { maxLength: whole.ids.length - 3 }))
    assert.deepEqual(cut.ids, whole.ids.slice(0, -3))
    for (const [maxLength, says] of [
      [whole.ids.length - 25, /image would be lost/],
      [5, /no token of the answer/]
    ] as const) {
      const result = await encodeSample(processor, row, { maxLength })()
      assert.ok(E.isLeft(result) && result.left.some(({ message }) => message.startsWith('set.jsonl:3') && says.test(message)))
    }
  })

  it('several images share the maximum number of tiles', async () => {
    const tiles = async (n: number) => {
      const row = rowOf([{ from: 'human', value: '<image>\n'.repeat(n) }, made[0]!.turns[1]!])
      return (await orThrow(encodeSample(processor, row, { maxPatches: 12 }))).numPatches
    }
    assert.deepEqual(await tiles(1), [13]) // 4 x 3 and the whole
    assert.deepEqual(await tiles(2), [7, 7]) // 6 at most: 3 x 2, and the whole
    assert.deepEqual(await tiles(4), [1, 1, 1, 1]) // 3 at most
    assert.deepEqual(await tiles(13), Array(13).fill(1))
  })

  it('JPEG compression depends on its seed, and changes pixels little', async () => {
    const row = sceneSample(4, 1, { describe: 1 })
    const [plain, a, b, c] = await Promise.all([undefined, 1, 1, 2].map((jpegSeed) => orThrow(encodeSample(processor, row, jpegSeed === undefined ? {} : { jpegSeed })))) // biome-ignore format: one line
    assert.deepEqual(a!.pixels, b!.pixels)
    assert.notDeepEqual(a!.pixels, plain!.pixels)
    assert.notDeepEqual(a!.pixels, c!.pixels)
    const away = a!.pixels.reduce((sum, x, i) => sum + Math.abs(x - plain!.pixels[i]!), 0) / a!.pixels.length
    assert.ok(away < 0.1, `${away}`)
  })

  it('a preference row gives two samples with one prompt', async () => {
    const row = getOrThrow(
      parseRow(
        JSON.stringify({ image: 'a.png', question: '<image>\nWhat?', chosen: 'A star.', rejected: 'No idea.' }),
        'p:1',
        dir
      )
    )
    const { chosen, rejected } = await orThrow(encodePreference(processor, row))
    const supervisedText = ({ labels }: Sample) => processor.decode([...labels].filter((label) => label !== -100))
    assert.deepEqual([supervisedText(chosen), supervisedText(rejected)], ['A star.<|im_end|>', 'No idea.<|im_end|>'])
    assert.equal(chosen.pixels, rejected.pixels)
  })

  it('all errors of a file are found before the first step, by line', async () => {
    const file = join(dir, 'bad.jsonl')
    const line = (value: string, answer: string, more: object = {}) =>
      JSON.stringify({
        conversations: [{ from: 'human', value }, ...(answer === '-' ? [] : [{ from: 'gpt', value: answer }])],
        ...more
      })
    const lines = [line('fine <image>', 'yes', { image: 'a.png' }), '{', line('x', ' '), line('<image>', 'y'), line('<image>', 'y', { image: 'none.png' }), line('x', '-'), '3', JSON.stringify({ question: 'q', chosen: 'c', rejected: ' ' })] // biome-ignore format: one line
    writeFileSync(file, lines.join('\n'))
    const read = await orThrow(readRows(file))
    const checked = await checkRows(read.rows)
    const says = [...read.issues, ...checked.issues].map(({ message }) => message.slice(file.length + 1))
    assert.equal(checked.rows.length, 1)
    for (const [
      at,
      pattern
    ] of [[2, /not JSON/], [7, /not a JSON object/], [4, /more <image>/], [3, /empty/], [5, /no such image: .*none\.png/], [6, /without an answer/], [8, /rejected answer is empty/]] as const) // biome-ignore format: one line
      assert.ok(
        says.some((message) => message.startsWith(`${at}:`) && pattern.test(message)),
        `${at}: ${pattern}\n${says.join('\n')}`
      )
    assert.equal(says.length, 7)
  })

  it('a turn that calls tools has no text, and is no empty answer', async () => {
    const file = join(dir, 'tools.jsonl')
    const call = { type: 'function', function: { name: 'f', arguments: {} } }
    const turns = (calls: readonly object[]) => [
      { role: 'user', content: 'x' },
      { role: 'assistant', content: null, tool_calls: calls },
      { role: 'tool', content: '1' },
      { role: 'assistant', content: 'y' }
    ]
    writeFileSync(file, [[call], []].map((calls) => JSON.stringify({ messages: turns(calls) })).join('\n'))
    const read = await orThrow(readRows(file))
    const { rows, issues } = await checkRows(read.rows)
    assert.equal(rows.length, 1)
    assert.match([...read.issues, ...issues].map(({ message }) => message).join(), /:2: an answer is empty/)
  })
})
