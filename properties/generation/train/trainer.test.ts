import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { jsonlLogger } from '../../../generation/train/logging/train-log.js'
import { bestCheckpoint, lastCheckpoint, loadCheckpoint, saveCheckpoint } from '../../../generation/train/train-checkpoint.js'
import { runTrainer, type TrainerOptions } from '../../../generation/train/trainer.js'
import { initialState } from '../../../generation/train/training-loop.js'
import { InternVLError, orThrow } from '../../../lib/error.js'
import { disposeParams } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { type Line, line, lossesOf, type Points, points, settings } from './regression.js'

const childFile = fileURLToPath(new URL('./trainer-child.ts', import.meta.url))

const isError = (message: RegExp) => (error: unknown) => error instanceof InternVLError && message.test(error.message)

describe('runTrainer', () => {
  let checkpoints: string
  beforeEach(async () => {
    checkpoints = await mkdtemp(join(tmpdir(), 'run-'))
  })
  afterEach(() => rm(checkpoints, { recursive: true, force: true }))

  const losses: number[] = []
  const trained = async (options: Partial<TrainerOptions<Line, Points>>) => {
    losses.length = 0
    const callbacks = [{ onStepEnd: ({ loss }: { readonly loss: number }) => void losses.push(loss) }]
    const state = await runTrainer(line(), points, { ...settings, checkpoints, callbacks, ...options })
    disposeParams([state.params, state.optimizer.first, state.optimizer.second])
    return state
  }

  it('resumes after kill -9 with the losses of an uninterrupted run, bit by bit', async () => {
    const child = spawn(process.execPath, ['--import', 'tsx', childFile, checkpoints], { stdio: ['ignore', 'pipe', 'inherit'] })
    const before: number[] = []
    for await (const chunk of child.stdout) {
      for (const entry of String(chunk).trim().split('\n')) before.push(Number(entry.split(' ')[1]))
      if (before.length >= 8) break
    }
    child.kill('SIGKILL')
    const { step } = (await orThrow(loadCheckpoint((await lastCheckpoint(checkpoints))!, line()))).metadata
    await trained({ resume: true, steps: step + 6, saveSteps: 3 })
    const whole = await lossesOf(step + 6)
    assert.ok(step >= 6 && step % 3 === 0, `${step}`)
    assert.deepEqual(before.slice(0, 8), whole.slice(0, 8))
    assert.deepEqual(losses, whole.slice(step))
  })

  it('keeps the last checkpoints and the best one', async () => {
    const scores = [5, 1, 4, 3, 2]
    const evaluate = () => ({ loss: scores.shift()! })
    await trained({ steps: 10, evaluateSteps: 2, evaluate, keepLast: 2 })
    assert.deepEqual((await readdir(checkpoints)).sort(), ['step-0000004', 'step-0000008', 'step-0000010'])
    assert.equal(await bestCheckpoint(checkpoints), join(checkpoints, 'step-0000004'))
  })

  it('refuses a folder with checkpoints unless resume is set', async () => {
    await trained({ steps: 2 })
    await assert.rejects(trained({ steps: 4 }), /holds checkpoints of an earlier run/)
    await trained({ steps: 4, resume: true })
    assert.deepEqual(losses, (await lossesOf(4)).slice(2))
  })

  it('stops at a loss that is not finite and names the last good checkpoint', async () => {
    const loss: typeof settings.loss = (params, batch, lossState) => {
      const result = settings.loss(params, batch, lossState)
      return lossState.batches === 7 ? { ...result, loss: result.loss.mul(Number.NaN) } : result
    }
    const before = tf.memory().numTensors
    await assert.rejects(
      trained({ loss, saveSteps: 3 }),
      /step 8: the loss is NaN[\s\S]*the last good checkpoint is .*step-0000006; resume/
    )
    assert.equal(tf.memory().numTensors, before)
  })

  it('leaves earlier checkpoints intact when the disk is full', async () => {
    await trained({ steps: 2 })
    const there = await readdir(checkpoints)
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { syscall: 'write' })
    const weight = Object.assign(tf.zeros([1, 3]), { data: () => Promise.reject(full) })
    const params = { ...line(), weight }
    const saved = await saveCheckpoint(checkpoints, { ...initialState(params, settings.optimizer), step: 3 })()
    assert.ok(saved._tag === 'Left' && /cannot be written \(ENOSPC/.test(saved.left[0].message))
    assert.deepEqual(await readdir(checkpoints), there)
  })

  it('stops at a log that cannot be written, names the last good checkpoint, and leaks no tensor', async () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { syscall: 'write' })
    const fail = () => {
      throw full
    }
    const log = { onStepEnd: ({ step }: { readonly step: number }) => (step === 4 ? fail() : undefined), onTrainEnd: fail }
    const before = tf.memory().numTensors
    await assert.rejects(
      trained({ saveSteps: 3, callbacks: [log] }),
      /a log file cannot be written \(ENOSPC.*\n.*step-0000003; resume/
    )
    assert.equal(tf.memory().numTensors, before)
  })

  it('a log that cannot be written at the start or end of training is one plain error, and leaks no tensor', async () => {
    const file = join(checkpoints, 'file')
    await writeFile(file, '')
    const before = tf.memory().numTensors
    const logger = jsonlLogger(join(file, 'train.jsonl')) // the folder of the log is a file
    await assert.rejects(
      trained({ steps: 1, callbacks: [logger] }),
      isError(/^training stopped: a log file cannot be written \(E/)
    )
    const plotter = { onTrainEnd: () => writeFile(join(file, 'loss.png'), '') }
    await assert.rejects(trained({ steps: 1, callbacks: [plotter] }), isError(/^a log file cannot be written \(ENOTDIR/))
    assert.equal(tf.memory().numTensors, before)
  })

  it('stops where a checkpoint cannot be written', async () => {
    const file = join(checkpoints, 'file')
    await writeFile(file, '')
    await assert.rejects(
      trained({ steps: 1, checkpoints: join(file, 'x') }),
      /training stopped: .*cannot be written[\s\S]*there is no checkpoint yet/
    )
  })

  it('reports the errors of a checkpoint of another model, and of a damaged checkpoint', async () => {
    await trained({ steps: 1 })
    const dir = (await lastCheckpoint(checkpoints))!
    const other = { weight: tf.zeros([2, 3]), gain: tf.zeros([1]) }
    const found = await loadCheckpoint(dir, other)()
    assert.ok(found._tag === 'Left')
    assert.deepEqual(
      found.left.map(({ _tag }) => _tag),
      ['MissingKey', 'UnexpectedKey', 'ShapeMismatch']
    )
    await writeFile(join(dir, 'state.json'), '{')
    const broken = await loadCheckpoint(dir, line())()
    assert.ok(broken._tag === 'Left' && /not a checkpoint of a training run/.test(broken.left[0].message))
    assert.equal(await readFile(join(dir, 'state.json'), 'utf8'), '{')
    tf.dispose(other)
  })
})
