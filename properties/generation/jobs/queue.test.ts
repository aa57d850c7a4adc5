import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { cancelRun, retryRun } from '../../../generation/jobs/queue/change-run.js'
import { collectRun } from '../../../generation/jobs/queue/collect-run.js'
import { startDashboard } from '../../../generation/jobs/queue/dashboard.js'
import type { Chunk } from '../../../generation/jobs/queue/job-chunk.js'
import { connectQueue, type QueueConnection } from '../../../generation/jobs/queue/queue-connection.js'
import { findRun } from '../../../generation/jobs/queue/run-info.js'
import { deadRows, runStatus } from '../../../generation/jobs/queue/run-status.js'
import { submitRun } from '../../../generation/jobs/queue/submit-run.js'
import { type WorkOptions, workOnRuns } from '../../../generation/jobs/queue/work-on-runs.js'
import { runBatch } from '../../../generation/jobs/run-batch.js'
import { type FixedEngineOptions, fixedEngine } from './fixed-engine.js'
import { freePort, hasRedis, startRedis } from './redis-server.js'

const child = fileURLToPath(new URL('./worker-child.ts', import.meta.url))

describe('jobs', () => {
  let dir: string
  before(async function () {
    dir = await mkdtemp(join(tmpdir(), 'jobs-'))
    if (hasRedis) return
    process.stderr.write('jobs: redis-server is not installed; these tests are skipped (apt-get install redis-server)\n')
    this.skip()
  })
  after(() => rm(dir, { recursive: true, force: true }))

  const writeRows = async (name: string, count: number, others: readonly object[] = []): Promise<string> => {
    const file = join(dir, name)
    const rows = [...Array.from({ length: count }, (_, i) => ({ id: `row ${i}`, question: `question ${i}` })), ...others]
    await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
    return file
  }
  const singleRun = async (file: string, engine: FixedEngineOptions = {}): Promise<string> => {
    const out = `${file}.single.jsonl`
    await runBatch(file, { out, startEngine: async () => fixedEngine(engine) })
    return readFile(out, 'utf8')
  }

  describe('with a Redis server', () => {
    let redis: Awaited<ReturnType<typeof startRedis>>
    let connection: QueueConnection
    let runs = 0
    let name: string
    before(async () => {
      redis = await startRedis()
      connection = await connectQueue(redis.url)
    })
    beforeEach(() => {
      name = `run-${runs++}`
    })
    after(async () => {
      await connection?.close()
      await redis?.close()
    })

    const work = (options: Partial<WorkOptions> = {}, engine: FixedEngineOptions = {}): Promise<void> =>
      workOnRuns(connection, { name, untilDone: true, startEngine: async () => fixedEngine(engine), ...options })
    const collected = async (options: { readonly partial?: boolean } = {}): Promise<string> => {
      const out = join(dir, `${name}.jsonl`)
      await collectRun(connection, { name, out, ...options })
      return readFile(out, 'utf8')
    }
    const status = async () => runStatus(connection, await findRun(connection, name))
    const startWorker = (url: string, delay: number, deadly = ''): ChildProcess =>
      spawn(process.execPath, ['--import', 'tsx', child, url, String(delay), deadly], { stdio: ['ignore', 'inherit', 'inherit'] })

    it('three workers, one killed, and a server that is killed and restarted: every row once, equal to one machine', async () => {
      const server = await startRedis()
      const file = await writeRows('many.jsonl', 300, [{ question: 'refused' }])
      const queue = await connectQueue(server.url)
      const workers = [1, 2, 3].map(() => startWorker(server.url, 100))
      try {
        await submitRun(queue, file, { name: 'many', chunk: 10 })
        const run = await findRun(queue, undefined)
        const answered = async (count: number): Promise<void> => {
          while ((await runStatus(queue, run)).answered < count) await setTimeout(50)
        }
        await answered(40)
        workers[0]!.kill('SIGKILL')
        await answered(100)
        await server.restart()
        await Promise.all(workers.slice(1).map((worker) => once(worker, 'exit')))
        assert.deepEqual(
          workers.map(({ exitCode }) => exitCode),
          [null, 0, 0]
        )
        const out = join(dir, 'many.out.jsonl')
        assert.deepEqual(await collectRun(queue, { out }), { name: 'many', rows: 301, answered: 301, errors: 1 })
        assert.equal(await readFile(out, 'utf8'), await singleRun(file, { isRefused: (question) => question === 'refused' }))
      } finally {
        for (const worker of workers) worker.kill('SIGKILL')
        await queue.close()
        await server.close()
      }
    }).timeout(90_000)

    it('a row that ends its worker again and again becomes a dead letter, and the other rows of its job have answers', async () => {
      const file = await writeRows('deadly.jsonl', 5, [{ id: 'poison', question: 'deadly' }])
      await submitRun(connection, file, { name, chunk: 3 })
      const workers = [1, 2, 3].map(() => once(startWorker(redis.url, 1, 'deadly'), 'exit'))
      assert.deepEqual(await Promise.all(workers), Array(3).fill([null, 'SIGKILL']))
      await work({ stallSeconds: 1 }, { onQuestion: (question) => assert.notEqual(question, 'deadly') })
      const letters = []
      for await (const letter of deadRows(connection.store, await findRun(connection, name))) letters.push(letter)
      assert.deepEqual(
        letters.map(({ row, id, error }) => ({ row, id, error })),
        [{ row: 5, id: 'poison', error: '2 workers ended while they answered this row.' }]
      )
      assert.equal((await collected()).split('\n').filter((line) => line.includes('"error":null')).length, 5)
      assert.deepEqual(await retryRun(connection, name), { name, rows: 1, jobs: 0 })
      assert.equal((await status()).isComplete, false)
      await work()
      assert.equal(await collected(), await singleRun(file))
      assert.equal((await status()).errors, 0)
    }).timeout(90_000)

    it('a stop returns the rest of a job to the queue at once, and another worker continues', async () => {
      const file = await writeRows('stop.jsonl', 40)
      await submitRun(connection, file, { name, chunk: 40 })
      const stop = new AbortController()
      let asked = 0
      await work({ stop: stop.signal, batch: 2 }, { delay: 5, onQuestion: () => (++asked === 10 ? stop.abort() : undefined) })
      const { answered, jobs } = await status()
      assert.ok(answered >= 10 && answered < 12, `${answered}`)
      assert.equal(jobs.waiting, 1)
      await assert.rejects(collected(), /run run-\d+: it is not complete: 1\d of 40 rows are answered; give --wait/)
      assert.equal((await collected({ partial: true })).trim().split('\n').length, answered)
      await work({ batch: 2 }, { onQuestion: () => asked++ })
      assert.equal(asked, 40)
      assert.equal(await collected(), await singleRun(file))
    })

    it('an interrupted submission continues without a second answer; a full queue waits for workers', async () => {
      const file = await writeRows('submit.jsonl', 50)
      const stop = new AbortController()
      const first = await submitRun(connection, file, {
        name,
        chunk: 5,
        maxWaiting: 4,
        stop: stop.signal,
        onProgress: (_, __, isFull) => isFull && stop.abort()
      })
      assert.deepEqual(first, { rows: 50, submitted: 20 })
      const asked: string[] = []
      const working = work({}, { onQuestion: (question) => asked.push(question) })
      assert.deepEqual(await submitRun(connection, file, { name, chunk: 5, maxWaiting: 4 }), { rows: 50, submitted: 50 })
      await working
      assert.deepEqual(await submitRun(connection, file, { name, chunk: 5 }), { rows: 50, submitted: 50 })
      assert.equal(new Set(asked).size, 50)
      assert.equal(asked.length, 50)
      assert.equal(await collected(), await singleRun(file))
    }).timeout(60_000)

    it('a cancelled run continues when it is submitted again; a removed one leaves its name free', async () => {
      const file = await writeRows('cancel.jsonl', 20)
      await submitRun(connection, file, { name, chunk: 5 })
      await cancelRun(connection, name)
      await work() // nothing is left to do
      await assert.rejects(collected(), /it was cancelled: 0 of 20 rows are answered/)
      await submitRun(connection, file, { name, chunk: 5 })
      await work()
      assert.equal(await collected(), await singleRun(file))
      const other = await writeRows('other.jsonl', 3)
      await assert.rejects(submitRun(connection, other, { name }), /has the rows of .*cancel\.jsonl .*jobs cancel --remove/)
      await cancelRun(connection, name, { remove: true })
      await submitRun(connection, other, { name })
      await work()
      assert.equal(await collected(), await singleRun(other))
    })

    it('refuses a model that differs by content, and runs and jobs of another version, each in one sentence', async () => {
      const file = await writeRows('model.jsonl', 2)
      const [first, second] = [join(dir, 'first'), join(dir, 'second')]
      for (const [folder, text] of [
        [first, '{}'],
        [second, '{ }']
      ] as const) {
        await mkdir(folder)
        await writeFile(join(folder, 'config.json'), text)
      }
      await submitRun(connection, file, { name, chunk: 1 })
      const stop = new AbortController()
      await work({ model: first, stop: stop.signal, batch: 1 }, { onQuestion: () => stop.abort() })
      await assert.rejects(work({ model: second }), (error: Error) => {
        assert.match(
          error.message,
          /^run run-\d+: its answers are of the model .*first \(content [0-9a-f]{16}, first worker .*\); this worker has .*second \(content [0-9a-f]{16}\); start it with the same files/
        )
        return !error.message.includes('\n')
      })
      const events: string[] = []
      await connection.queue(name).add('rows', { version: 99, records: [] } as Chunk, { jobId: 'alien-job' })
      await work({ model: first, onEvent: (line) => events.push(line) })
      assert.ok(
        events.some((line) =>
          /job alien-job: it was submitted by another version of internvl \(format 99, this worker reads 1\)/.test(line)
        ),
        events.join('\n')
      )
      assert.deepEqual((await status()).jobs, { waiting: 0, active: 0, delayed: 0, failed: 1 })
      assert.match((await status()).failures[0]!, /another version/)
      await connection.store.set('internvl:runs', [['alien', JSON.stringify({ version: 99 })]])
      await assert.rejects(
        work({ name: 'alien' }),
        /^InternVLError: run alien: it was submitted by another version of internvl \(format 99, this one reads 1\); use the same version/
      )
      await connection.store.delete('internvl:runs', ['alien'])
    })

    it('a worker keeps its rate, and the dashboard shows the jobs but changes none', async () => {
      const file = await writeRows('rate.jsonl', 4)
      await submitRun(connection, file, { name, chunk: 4 })
      const start = performance.now()
      await work({ rowsPerMinute: 600, batch: 1 })
      assert.ok(performance.now() - start >= 390, 'four rows at ten a second')
      const board = await startDashboard(connection, 0)
      try {
        const page = await fetch(`${board.url}/`)
        assert.match(await page.text(), /internvl jobs/)
        const { queues } = (await (await fetch(`${board.url}/api/queues`)).json()) as {
          readonly queues: readonly { readonly name: string; readonly readOnlyMode: boolean }[]
        }
        assert.ok(queues.some((queue) => queue.name === name && queue.readOnlyMode))
        const { port } = new URL(board.url)
        await assert.rejects(startDashboard(connection, Number(port)), /--dashboard \d+: the port is in use/)
      } finally {
        await board.close()
      }
    })
  })

  it('an unreachable queue and a wrong address are one sentence, without the password', async () => {
    const port = await freePort()
    const refused = async (address: string, message: RegExp): Promise<void> => {
      await assert.rejects(connectQueue(address), (error: Error) => {
        assert.match(error.message, message)
        assert.ok(!error.message.includes('secret') && !error.message.includes('\n'), error.message)
        return error.name === 'InternVLError'
      })
    }
    await refused(
      `redis://user:secret@127.0.0.1:${port}`,
      /--queue redis:\/\/user:\*\*\*@127\.0\.0\.1:\d+: the queue cannot be reached \(ECONNREFUSED\)/
    )
    await refused(`postgres://user:secret@127.0.0.1:${port}/x`, /the queue cannot be reached \(ECONNREFUSED\)/)
    await refused('http://127.0.0.1', /expected an address such as redis:\/\/localhost:6379/)
    await refused('nonsense', /expected an address/)
  })
})
