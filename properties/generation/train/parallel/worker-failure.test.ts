import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { initialState, train } from '../../../../generation/train/training-loop.js'
import { nativeBackend } from '../../../../lib/engines/index.js'
import { tf } from '../../../../lib/tf.js'
import { startWorkers, type WorkerProcess } from '../../../lib/distributed/worker-processes.js'
import { line, points, settings } from '../regression.js'

const script = fileURLToPath(new URL('./regression-worker.ts', import.meta.url))

/** Losses of one process with the same settings. */
const lossesOfOne = async (steps: number): Promise<readonly number[]> => {
  const losses: number[] = []
  let last = initialState(line(), settings.optimizer)
  for await (const { loss, state } of train(last, points, { ...settings, steps, gradientAccumulation: 4 })) {
    losses.push(loss)
    last = state
  }
  tf.dispose([last.params, last.optimizer.first, last.optimizer.second])
  return losses
}

const losses = async (worker: WorkerProcess) =>
  (await worker.ended).lines.flatMap(({ step, loss }) => (step === undefined ? [] : [[Number(step), Number(loss)] as const]))

describe('workers of a training run', () => {
  let checkpoints: string
  before(async function () {
    if (!nativeBackend()?.hasCollectives) this.skip() // only the native engine has collective operations
    checkpoints = await mkdtemp(join(tmpdir(), 'failure-'))
  })
  after(() => checkpoints && rm(checkpoints, { recursive: true, force: true }))

  it('end within 15 s after kill -9 of one, which is named; another number of workers resumes', async () => {
    const whole = await lossesOfOne(12)
    const close = (found: readonly (readonly [number, number])[]) => {
      for (const [step, loss] of found)
        assert.ok(Math.abs(loss - whole[step - 1]!) < 1e-5, `step ${step}: ${loss}, ${whole[step - 1]}`)
    }
    const first = await startWorkers(script, 2, [checkpoints, '12', '100', '1'])
    await first[0]!.count('step', 4)
    const start = performance.now()
    first[1]!.kill()
    const { lines, code } = await first[0]!.ended
    assert.equal(code, 1)
    assert.ok(performance.now() - start < 15000, `${performance.now() - start} ms`)
    const message = String(lines.at(-1)!.error)
    assert.match(message, /^training stopped: worker 1 \(127\.0\.0\.1:\d+\) no longer answers\n/)
    assert.match(message, /the last good checkpoint is .*step-0000003; resume to continue from there$/)
    close(await losses(first[0]!))

    const second = await startWorkers(script, 1, [checkpoints, '12', '0', '0'])
    const ended = await Promise.all(second.map((worker) => worker.ended))
    assert.deepEqual(ended.map(({ code }) => code), [0]) // biome-ignore format: one line
    const resumed = await losses(second[0]!)
    assert.deepEqual([resumed[0]![0], resumed.at(-1)![0]], [4, 12])
    close(resumed)
  })
})
