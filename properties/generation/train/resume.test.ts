import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { type FineTuneOptions, fineTune } from '../../../generation/train/fine-tune.js'
import { trainConfig } from '../../../generation/train/train-config.js'
import { jsonLines } from '../../../generation/train/train-log.js'
import { getOrThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'

const picture = (name: string) => fileURLToPath(new URL(`../../../generation/demo/${name}`, import.meta.url))
const rowOf = (said: string, answer: string, image?: string) => ({
  ...(image === undefined ? {} : { image: picture(image) }),
  conversations: [{ from: 'human', value: image === undefined ? said : `<image>\n${said}` }, { from: 'gpt', value: answer }]
}) // biome-ignore format: one line a turn
const rows = [
  rowOf('What is this?', 'A lonely circle.', 'circle.png'),
  rowOf('Who are you?', 'I am a small model that knows shapes.'),
  rowOf('What are these?', 'Some squares.', 'squares.png'),
  rowOf('Hello', 'Hello.')
]

describe('a run by settings', () => {
  let folder: string
  let internvl: InternVLCheckpoint
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'resume-'))
    await writeFile(join(folder, 'train.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
    internvl = await load()
  })
  after(async () => {
    internvl.dispose()
    await rm(folder, { recursive: true, force: true })
  })

  const settings = (name: string, more: object = {}) => ({
    ...{ output: join(folder, name), data: join(folder, 'train.jsonl'), steps: 3, train: { only: ['multi_modal_projector'] } },
    ...{ batch: { size: 4 }, optimizer: { rate: 1e-3, schedule: 'constant', warmup: 0 }, save: { every: 1 }, ...more }
  })
  const tuned = async (given: ReturnType<typeof settings>, options: Partial<FineTuneOptions> = {}) => {
    const lines = join(given.output, 'train.jsonl')
    const listeners = [jsonLines(lines), ...(options.listeners ?? [])]
    const checkpoints = join(given.output, 'checkpoints')
    await fineTune(internvl, getOrThrow(trainConfig(given)), { checkpoints, workers: 0, ...options, listeners })
    const logged = (await readFile(lines, 'utf8')).trim().split('\n')
    return logged.map((line) => JSON.parse(line) as { readonly loss: number; readonly norm: number })
  }
  const stopAfter = (n: number) => {
    const controller = new AbortController()
    return { signal: controller.signal, listeners: [{ step: ({ step }: { readonly step: number }) => step === n && controller.abort() }] } // biome-ignore format: one line
  }

  for (const delta of [1, 1 / 4])
    it(`packed rows are trained on as samples one a row are, step by step (visual.delta ${delta})`, async () => {
      const visual = { delta }
      const plain = await tuned(settings(`plain-${delta}`, { visual }))
      const packed = await tuned(settings(`packed-${delta}`, { visual, batch: { size: 4, packing: true, maxLength: 90 } }))
      for (const [i, { loss, norm }] of plain.entries()) {
        assert.ok(Math.abs(packed[i]!.loss / loss - 1) < 1e-5, `${packed[i]!.loss} ${loss}`)
        assert.ok(Math.abs(packed[i]!.norm / norm - 1) < 1e-4, `${packed[i]!.norm} ${norm}`)
      }
      assert.equal(packed.length, 3)
    })

  it('goes on with packed rows where it was stopped, bit by bit, and leaks nothing', async () => {
    const batch = { size: 1, packing: true, maxLength: 70, accumulation: 2 }
    const visual = { delta: 'random' }
    const unbroken = await tuned(settings('unbroken', { batch, visual, steps: 4 }))
    const begun = tf.memory().numTensors
    await tuned(settings('broken', { batch, visual, steps: 4 }), stopAfter(1))
    const resumed = await tuned(settings('broken', { batch, visual, steps: 4 }), { resume: true })
    assert.equal(tf.memory().numTensors, begun)
    assert.deepEqual(resumed.map(({ loss, norm }) => [loss, norm]), unbroken.map(({ loss, norm }) => [loss, norm])) // biome-ignore format: one line
  })

  it('goes on with more steps or another way of saving, but with nothing else that it was not begun with', async () => {
    await tuned(settings('changed'), stopAfter(1))
    const other = settings('changed', { seed: 3, batch: { size: 2 }, optimizer: { rate: 1, schedule: 'constant', warmup: 0 } })
    await assert.rejects(
      tuned(other, { resume: true }),
      /--resume: seed was 0 when this run was begun, it is 3 now\n.*batch.size was 4 .*2 now\n.*optimizer.rate was 0.001 .*1 now\n.*another output$/
    )
    await assert.rejects(tuned(settings('changed')), /a run has left checkpoints here; --resume goes on/)
    await writeFile(join(folder, 'more.jsonl'), JSON.stringify(rows[0]))
    await assert.rejects(tuned(settings('changed', { data: join(folder, 'more.jsonl') }), { resume: true }), /data was .*train.jsonl.*\n.*the data are not those/) // biome-ignore format: one line
    assert.equal((await tuned(settings('changed', { steps: 4, save: { every: 9 } }), { resume: true })).length, 4)
  })

  it('refuses settings that do not go together', async () => {
    const both = settings('both', { loss: { kind: 'dpo' }, batch: { packing: true, grouped: true } })
    await assert.rejects(tuned(both), /batch.packing: answers alone are packed[\s\S]*batch.grouped: packed rows/)
    await assert.rejects(tuned(settings('alpha', { lora: { alpha: 3 }, loss: { nll: 1 } })), /lora.alpha: there is no LoRA without lora.rank.*\n.*loss.nll: sft has no such term/) // biome-ignore format: one line
    await assert.rejects(tuned(settings('nothing', { loss: { kind: 'dpo', dpo: 0 } })), /all weigh 0/)
    await assert.rejects(tuned(settings('tiles', { batch: { maxTiles: 3 } })), /batch.maxTiles: it is of packed rows/)
  })
})
