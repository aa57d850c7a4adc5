import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { partOf, type WorkerShare, workerShare } from '../../../../generation/train/parallel/worker-share.js'
import { runTrainer, type TrainerOptions } from '../../../../generation/train/trainer.js'
import type { StepReport } from '../../../../generation/train/training-loop.js'
import { getOrThrow, InternVLError } from '../../../../lib/error.js'
import { tf } from '../../../../lib/tf.js'
import { inMemoryGroup } from '../../../lib/distributed/in-memory-group.js'
import { type Line, line, type Points, pointsAt, settings } from '../regression.js'

const gradientAccumulation = 4
const batchSize = 4

/** The batches of a worker from a position on. */
const sharedPoints = ({ group, groups, part, parts }: WorkerShare) =>
  function* (position: number): Generator<Points> {
    for (let at = position + group; ; at += groups) {
      const { x, y } = pointsAt(at)
      const rows = batchSize / parts
      const cut = tf.tidy(() => ({ x: x.slice([part * rows, 0], [rows, -1]), y: y.slice([part * rows, 0], [rows, -1]) }))
      tf.dispose([x, y])
      yield cut
    }
  }

type Report = Omit<StepReport<unknown>, 'state'>

describe('training with several workers', () => {
  let checkpoints: string
  beforeEach(async () => {
    checkpoints = await mkdtemp(join(tmpdir(), 'parallel-'))
  })
  afterEach(() => rm(checkpoints, { recursive: true, force: true }))

  /** Trains with workers in this process. Returns the reports of worker 0 and the parameters of each worker. */
  const trained = async (workers: number, zero: 0 | 1, options: Partial<TrainerOptions<Line, Points>> = {}) => {
    const reports: Report[] = []
    const callbacks = [{ onStepEnd: (report: Report) => void reports.push(report) }]
    const before = tf.memory().numTensors
    const states = await Promise.all(
      inMemoryGroup(workers).map((group) => {
        const share = getOrThrow(workerShare(group.rank, workers, { batchSize, gradientAccumulation }))
        const parallel = { group, zero, share }
        const weightOf = ({ x }: Points) => x.shape[0]
        return runTrainer(line(), sharedPoints(share), {
          ...settings,
          ...{ checkpoints, gradientAccumulation, weightOf, callbacks, parallel, steps: 20, maxGradNorm: 1, ...options }
        })
      })
    )
    const params = states.map(({ params: { weight, bias } }) => [...weight.dataSync(), ...bias.dataSync()])
    const moments = states.map(({ optimizer: { first } }) => Object.values(first).reduce((n, { size }) => n + size, 0))
    tf.dispose(states.map(({ params, optimizer: { first, second } }) => ({ params, first, second })))
    assert.equal(tf.memory().numTensors, before)
    return { reports, losses: reports.map(({ loss }) => loss), params, moments }
  }
  const close = (a: readonly number[], b: readonly number[]) => {
    assert.equal(a.length, b.length)
    for (const [i, x] of a.entries()) assert.ok(Math.abs(x - b[i]!) < 1e-5, `${i}: ${x} and ${b[i]}`)
  }
  const removeAll = async () => {
    for (const name of await readdir(checkpoints)) await rm(join(checkpoints, name), { recursive: true })
  }

  it('losses of 1, 2, 4, 8 and 16 workers, and of ZeRO-1, are equal to 1e-5; parameters are equal on all workers', async () => {
    const single = await trained(1, 0)
    assert.ok(single.losses.at(-1)! < single.losses[0]!)
    const runs = [
      ...[2, 4, 8, 16].map((workers) => ({ workers, zero: 0 }) as const),
      ...[2, 4].map((workers) => ({ workers, zero: 1 }) as const)
    ]
    for (const { workers, zero } of runs) {
      await removeAll()
      const { losses, params, moments, reports } = await trained(workers, zero)
      close(losses, single.losses)
      for (const one of params) assert.deepEqual(one, params[0])
      assert.deepEqual(moments, Array(workers).fill(zero ? Math.ceil(3 / workers) + 1 : 4))
      assert.ok(reports.every(({ communication }) => communication!.bytes > 0))
    }
  })

  it('resumes with another number of workers, with ZeRO-1 or without', async () => {
    const { losses } = await trained(1, 0)
    const [two, four, one] = [{ workers: 2, zero: 1 }, { workers: 4, zero: 0 }, { workers: 1, zero: 0 }] as const // biome-ignore format: one line
    const changes = [{ before: two, after: four }, { before: four, after: two }, { before: two, after: one }] // biome-ignore format: one line
    for (const { before, after } of changes) {
      await removeAll()
      const first = await trained(before.workers, before.zero, { steps: 8 })
      const second = await trained(after.workers, after.zero, { steps: 20, resume: true })
      close([...first.losses, ...second.losses], losses)
    }
  })

  it('a signal of one worker stops all after the same step, with a checkpoint', async () => {
    const stop = new AbortController()
    const onStepEnd = ({ step }: Report) => step === 3 && stop.abort()
    await trained(2, 0, { signal: stop.signal, callbacks: [{ onStepEnd }] })
    assert.deepEqual(await readdir(checkpoints), ['step-0000003'])
  })

  it('parameters that differ between workers end the run before the checkpoint', async () => {
    const groups = inMemoryGroup(2)
    const runs = groups.map((group) => {
      const share = getOrThrow(workerShare(group.rank, 2, { batchSize, gradientAccumulation: 2 }))
      const params = { weight: tf.fill<tf.Rank.R2>([1, 3], group.rank), bias: tf.zeros<tf.Rank.R1>([1]) }
      const options = {
        ...settings,
        checkpoints,
        gradientAccumulation: 2,
        steps: 1,
        parallel: { group, zero: 0 as const, share }
      }
      return runTrainer(params, sharedPoints(share), options)
    })
    for (const run of await Promise.allSettled(runs)) {
      assert.ok(run.status === 'rejected' && run.reason instanceof InternVLError)
      assert.match(run.reason.message, /parameters of worker 1 \(worker-1:4000\) differ from those of worker 0/)
    }
    assert.deepEqual(await readdir(checkpoints), [])
  })
})

describe('workerShare', () => {
  it('covers every sample of a step once; a number of workers that does not divide them is an error', () =>
    fc.assert(
      fc.property(
        ...[fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 })],
        (workers, batchSize, gradientAccumulation) => {
          const shares = Array.from({ length: workers }, (_, i) => workerShare(i, workers, { batchSize, gradientAccumulation }))
          const isPossible = (batchSize * gradientAccumulation) % workers === 0
          if (!isPossible) {
            assert.ok(shares.every(E.isLeft))
            return
          }
          const samples = Array.from({ length: batchSize }, (_, i) => i)
          const all = shares.flatMap((share) => {
            const mine = getOrThrow(share)
            const batches = Array.from({ length: gradientAccumulation / mine.groups }, (_, i) => i * mine.groups + mine.group)
            return batches.flatMap((batch) => partOf(samples, mine).map((i) => batch * batchSize + i))
          })
          assert.deepEqual([...all].sort((a, b) => a - b), Array.from({ length: batchSize * gradientAccumulation }, (_, i) => i)) // biome-ignore format: one line
        }
      )
    ))
})
