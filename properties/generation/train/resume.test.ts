import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { trainDemo } from '../../../generation/demo/train-demo.js'
import { type FineTuneOptions, fineTune } from '../../../generation/train/fine-tune.js'
import { jsonlLogger } from '../../../generation/train/logging/train-log.js'
import { changedValues } from '../../../generation/train/resume.js'
import { saveCheckpoint } from '../../../generation/train/train-checkpoint.js'
import { trainConfig } from '../../../generation/train/train-config.js'
import { initialState } from '../../../generation/train/training-loop.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { adamW } from '../../../lib/optim/adamw.js'
import { tf } from '../../../lib/tf.js'

const imagePath = (name: string) => fileURLToPath(new URL(`../../../generation/demo/${name}`, import.meta.url))
const rowOf = (question: string, answer: string, image?: string) => ({
  ...(image === undefined ? {} : { image: imagePath(image) }),
  conversations: [{ from: 'human', value: image === undefined ? question : `<image>\n${question}` }, { from: 'gpt', value: answer }]
}) // biome-ignore format: one line a turn
const rows = [
  rowOf('What is this?', 'A lonely circle.', 'circle.png'),
  rowOf('Who are you?', 'I am a small model that knows shapes.'),
  rowOf('What are these?', 'Some squares.', 'squares.png'),
  rowOf('Hello', 'Hello.')
]

describe('resuming a run', () => {
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
    ...{
      batch: { size: 4 },
      optimizer: { learningRate: 1e-3, schedule: 'constant', warmupRatio: 0 },
      save: { steps: 1 },
      ...more
    }
  })
  const tuned = async (given: ReturnType<typeof settings>, options: Partial<FineTuneOptions> = {}) => {
    const lines = join(given.output, 'train.jsonl')
    const callbacks = [jsonlLogger(lines), ...(options.callbacks ?? [])]
    const checkpoints = join(given.output, 'checkpoints')
    await fineTune(internvl, getOrThrow(trainConfig(given)), { checkpoints, workers: 0, ...options, callbacks })
    const logged = (await readFile(lines, 'utf8')).trim().split('\n')
    return logged.map((line) => JSON.parse(line) as { readonly loss: number; readonly gradNorm: number })
  }
  const stopAfter = (n: number) => {
    const controller = new AbortController()
    return { signal: controller.signal, callbacks: [{ onStepEnd: ({ step }: { readonly step: number }) => step === n && controller.abort() }] } // biome-ignore format: one line
  }

  it('the demo training refuses another seed and another start, and names each', async () => {
    const checkpoints = join(folder, 'demo')
    const state = initialState({ w: tf.zeros([2]) }, adamW({ learningRate: 1e-3 }))
    await orThrow(saveCheckpoint(checkpoints, state, { settings: { steps: 9, seed: 1 } }))
    const run = (more: object) => trainDemo(internvl, { steps: 9, checkpoints, resume: true, ...more })
    await assert.rejects(run({ seed: 2 }), /seed was 1 when the run began, and is 2 now\n.*resumes only with the settings/)
    const initial = internvl.params
    await assert.rejects(
      run({ seed: 2, initial }),
      /seed was 1 .*\n.*fromTrainedModel was false when the run began, and is true now/
    )
    assert.deepEqual(await changedValues(checkpoints, { seed: 1, fromTrainedModel: false }, { fromTrainedModel: false }), [])
    assert.deepEqual(await changedValues(join(folder, 'none'), { seed: 2 }), [])
  })

  for (const delta of [1, 1 / 4])
    it(`packed rows train exactly as one sample per row (visual.delta ${delta})`, async () => {
      const visual = { delta }
      const plain = await tuned(settings(`plain-${delta}`, { visual }))
      const packed = await tuned(settings(`packed-${delta}`, { visual, batch: { size: 4, packing: true, maxLength: 90 } }))
      for (const [i, { loss, gradNorm }] of plain.entries()) {
        assert.ok(Math.abs(packed[i]!.loss / loss - 1) < 1e-5, `${packed[i]!.loss} ${loss}`)
        assert.ok(Math.abs(packed[i]!.gradNorm / gradNorm - 1) < 1e-4, `${packed[i]!.gradNorm} ${gradNorm}`)
      }
      assert.equal(packed.length, 3)
    })

  it('resumes with packed rows bit by bit, and leaks no tensor', async () => {
    const batch = { size: 1, packing: true, maxLength: 70, gradientAccumulation: 2 }
    const visual = { delta: 'random' }
    const unbroken = await tuned(settings('unbroken', { batch, visual, steps: 4 }))
    const begun = tf.memory().numTensors
    await tuned(settings('broken', { batch, visual, steps: 4 }), stopAfter(1))
    const resumed = await tuned(settings('broken', { batch, visual, steps: 4 }), { resume: true })
    assert.equal(tf.memory().numTensors, begun)
    assert.deepEqual(resumed.map(({ loss, gradNorm }) => [loss, gradNorm]), unbroken.map(({ loss, gradNorm }) => [loss, gradNorm])) // biome-ignore format: one line
  })

  it('resumes with more steps or other save settings, but refuses other changed settings and data', async () => {
    await tuned(settings('changed'), stopAfter(1))
    const other = settings('changed', {
      seed: 3,
      batch: { size: 2 },
      optimizer: { learningRate: 1, schedule: 'constant', warmupRatio: 0 }
    })
    await assert.rejects(
      tuned(other, { resume: true }),
      /--resume: seed was 0 when the run began, and is 3 now\n.*batch.size was 4 .*2 now\n.*optimizer.learningRate was 0.001 .*1 now\n.*another output$/
    )
    await assert.rejects(tuned(settings('changed')), /holds checkpoints of an earlier run; add --resume/)
    await writeFile(join(folder, 'more.jsonl'), JSON.stringify(rows[0]))
    await assert.rejects(tuned(settings('changed', { data: join(folder, 'more.jsonl') }), { resume: true }), /data was .*train.jsonl.*\n.*the training data changed/) // biome-ignore format: one line
    assert.equal((await tuned(settings('changed', { steps: 4, save: { steps: 9 } }), { resume: true })).length, 4)
  })

  it('refuses combinations of settings that are not supported', async () => {
    const both = settings('both', { loss: { type: 'dpo' }, batch: { packing: true, groupByLength: true } })
    await assert.rejects(tuned(both), /batch.packing: only sft supports packing[\s\S]*batch.groupByLength: packed rows/)
    await assert.rejects(tuned(settings('alpha', { lora: { alpha: 3 }, loss: { nll: 1 } })), /lora.alpha: needs lora.rank.*\n.*loss.nll: sft has no such term/) // biome-ignore format: one line
    await assert.rejects(tuned(settings('nothing', { loss: { type: 'dpo', dpo: 0 } })), /are all 0/)
    await assert.rejects(tuned(settings('tiles', { batch: { maxTiles: 3 } })), /batch.maxTiles: applies to packed rows/)
  })
})
