import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { nativeBackend } from '../../../lib/engines/index.js'
import { startWorkers } from './worker-processes.js'

const script = fileURLToPath(new URL('./member-child.ts', import.meta.url))

describe('workers in several processes', () => {
  before(function () {
    if (!nativeBackend()?.hasCollectives) this.skip() // only the native engine has collective operations
  })

  it('sum and gather tensors, trees, slices and JSON: every worker has the same results', async () => {
    const workers = await startWorkers(script, 3)
    const ended = await Promise.all(workers.map((worker) => worker.ended))
    for (const [rank, { code, lines, errors }] of ended.entries()) {
      assert.deepEqual([code, errors], [0, ''])
      const [{ traffic, ...results } = {}, last] = lines
      assert.deepEqual(last, { done: true })
      assert.deepEqual(results, {
        sum: [6, 1.5],
        rows: [1, 0.5, 2, 0.5, 3, 0.5],
        json: [0, 1, 2].map((i) => ({ rank: i, text: 'ä'.repeat(i) })),
        first: 'from 0',
        tree: [Array(6).fill(3), [3, 6, 9, 12, 15]],
        slices: [[0, 0, 1, 1, 2, 2], [1, 2, 3, 4, 5]] // biome-ignore format: one line
      })
      assert.equal(traffic, ended[0]!.lines[0]!.traffic, `traffic of worker ${rank}`)
    }
  })

  it('name a worker that was killed, within 15 s', async () => {
    const workers = await startWorkers(script, 3, ['waits'])
    await Promise.all(workers.map((worker) => worker.line('sum')))
    const start = performance.now()
    workers[1]!.kill()
    for (const { ended } of [workers[0]!, workers[2]!]) {
      const { code, lines } = await ended
      assert.equal(code, 1)
      assert.match(String(lines.at(-1)!.error), /^worker 1 \(127\.0\.0\.1:\d+\) no longer answers$/)
    }
    assert.ok(performance.now() - start < 15000, `${performance.now() - start} ms`)
  })

  it('end in a computation that blocks the event loop, within 15 s after another was killed, which is named', async () => {
    const workers = await startWorkers(script, 3, ['computes'])
    await Promise.all(workers.map((worker) => worker.line('sum')))
    const start = performance.now()
    workers[1]!.kill()
    for (const { ended } of [workers[0]!, workers[2]!]) {
      const { lines, errors } = await ended
      assert.equal(lines.length, 1) // neither done nor an error of the main thread
      assert.match(
        errors,
        /^internvl: training stopped: worker 1 \(127\.0\.0\.1:\d+\).* no longer answers; this worker ends within its step/
      )
    }
    assert.ok(performance.now() - start < 15000, `${performance.now() - start} ms`)
  })

  it('pass on the reason of a worker that fails', async () => {
    const workers = await startWorkers(script, 2, ['reports'])
    const { lines } = await workers[0]!.ended
    assert.match(String(lines.at(-1)!.error), /^worker 1 \(127\.0\.0\.1:\d+\) stopped: the disk is full$/)
  })
})
