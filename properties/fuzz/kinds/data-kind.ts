import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { restoreChat } from '../../../generation/chat/chat.js'
import { readDataset } from '../../../generation/evaluate/eval-dataset.js'
import { readMixture, readTrainingData } from '../../../generation/train/data/mixture.js'
import { encodePreference, encodeSample } from '../../../generation/train/data/sample.js'
import { readTrainConfig } from '../../../generation/train/train-config.js'
import { type ByteEdit, byteEdits, editBytes, editJson, type JsonEdit, jsonEdits } from '../edits.js'
import { type Fixture, samples } from '../fixture.js'
import { attempt, settle } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

/** Rows of the published formats: conversations with an image, several images, a video, frames, text only, and a preference. */
export const rows: readonly unknown[] = [
  {
    id: 1,
    image: 'images/rgb.png',
    conversations: [
      { from: 'human', value: '<image>\nWhat?' },
      { from: 'gpt', value: 'A <ref>cat</ref><box>[[1, 2, 3, 4]]</box>' }
    ]
  },
  {
    image: ['images/rgb.png', 'images/grey.png'],
    conversations: [
      { from: 'system', value: 'Be brief.' },
      { from: 'human', value: '<image>\n<image>\nCompare.' },
      { from: 'gpt', value: 'Equal' }
    ]
  },
  {
    video: 'videos/one.mp4',
    conversations: [
      { from: 'human', value: '<video>\nWhat?' },
      { from: 'gpt', value: 'A video' }
    ]
  },
  {
    video: ['images/rgb.png', 'images/rgb.png'],
    conversations: [
      { from: 'human', value: '<video>What?' },
      { from: 'gpt', value: 'Frames' }
    ]
  },
  {
    conversations: [
      { from: 'human', value: 'Hello' },
      { from: 'gpt', value: 'Hi' },
      { from: 'human', value: 'Bye' },
      { from: 'gpt', value: 'Bye' }
    ]
  },
  { image: 'images/rgb.png', question: '<image>\nWhat?', chosen: 'A cat', rejected: 'A dog' }
]

const mixture = { first: { root: samples, annotation: 'rows.jsonl', repeat_time: 1.5, data_augment: true, max_dynamic_patch: 2, length: 6 } } // biome-ignore format: one line
const settings = { output: 'out', data: 'rows.jsonl', steps: 3, optimizer: { learningRate: 0.001 }, lora: { rank: 2 }, batch: 2, seed: 1 } // biome-ignore format: one line
const history = {
  format: 'internvl-chat',
  version: 1,
  messages: [
    { role: 'user', content: [{ type: 'text', text: 'Hello' }, { type: 'image', path: join(samples, 'images/rgb.png') }] },
    { role: 'assistant', content: 'Hi' }
  ]
} // biome-ignore format: one line a message

type Input =
  | { readonly file: 'rows'; readonly row: number; readonly edits: readonly JsonEdit[]; readonly bytes: readonly ByteEdit[] }
  | {
      readonly file: 'mixture' | 'settings' | 'history'
      readonly edits: readonly JsonEdit[]
      readonly bytes: readonly ByteEdit[]
    }

const fewBytes = fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: byteEdits(2) })

const inputs: fc.Arbitrary<Input> = fc.oneof(
  ...rows.map((row, i) => fc.record({ file: fc.constant('rows' as const), row: fc.constant(i), edits: jsonEdits(row, { extra: [[['image'], ''], [['video'], ''], [['messages'], []], [['images'], ['images/rgb.png']]] }), bytes: fewBytes })), // biome-ignore format: one line
  ...([['mixture', mixture], ['settings', settings], ['history', history]] as const).map(([file, json]) => fc.record({ file: fc.constant(file), edits: jsonEdits(json), bytes: fewBytes })) // biome-ignore format: one line
)

/** Reads one row in all ways: for evaluation, for training, and as tokens with labels. */
const readRow = async (dir: string, { internvl: { processor } }: Fixture): Promise<boolean> => {
  const file = join(dir, 'rows.jsonl')
  await attempt(() => settle(readDataset(file)))
  const entry = { name: 'first', root: samples, annotation: [file], repeatTime: 1, augment: false }
  const data = await settle(readTrainingData([entry], { skipBad: true }))
  for (const row of data.rows) {
    const encode = row.rejected === undefined ? encodeSample : encodePreference
    await settle(encode(processor, row, { maxLength: 200, maxPatches: 2 }) as ReturnType<typeof encodeSample>)
  }
  return true
}

/** Rows of jsonl, mixture files, training settings, saved chats. */
export const dataKind = fuzzKind<Input>({
  name: 'data',
  arbitrary: inputs,
  run: async (input, fixture) => {
    const dir = fixture.work()
    const write = (name: string, json: unknown): string => {
      const content = editBytes(Buffer.from(editJson(JSON.stringify(json), input.edits)), input.bytes)
      writeFileSync(join(dir, name), content)
      return Buffer.from(content).toString()
    }
    if (input.file === 'rows') {
      write('rows.jsonl', rows[input.row])
      return readRow(dir, fixture)
    }
    const text = write(`${input.file}.json`, { mixture, settings, history }[input.file])
    if (input.file === 'history') {
      const session = restoreChat(fixture.internvl, text)
      try {
        await session.ask('And?', { maxNewTokens: 2 })
      } finally {
        session.dispose()
      }
      return true
    }
    if (input.file === 'settings') return E.isRight(E.right(await settle(readTrainConfig(join(dir, 'settings.json')))))
    writeFileSync(join(dir, 'rows.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'))
    await settle(readTrainingData(await settle(readMixture(join(dir, 'mixture.json')))))
    return true
  }
})
