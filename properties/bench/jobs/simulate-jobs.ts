// npm run simulate:jobs: throughput of the queue by number of workers, with a model of fixed delay and a Redis server of its own.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Command } from 'commander'
import { collectRun } from '../../../generation/jobs/queue/collect-run.js'
import { connectQueue } from '../../../generation/jobs/queue/queue-connection.js'
import { findRun, keysOf } from '../../../generation/jobs/queue/run-info.js'
import { submitRun } from '../../../generation/jobs/queue/submit-run.js'
import { workOnRuns } from '../../../generation/jobs/queue/work-on-runs.js'
import { fixedEngine } from '../../generation/jobs/fixed-engine.js'
import { hasRedis, startRedis } from '../../generation/jobs/redis-server.js'

interface Flags {
  readonly rows: string
  readonly workers: string
  readonly delay: string
  readonly batch: string
  readonly chunk: string
}

/** Seconds of submission, of work and of collection, by `count` workers in this process, each with a connection of its own. */
const simulate = async (file: string, count: number, { rows, delay, batch, chunk }: Readonly<Record<string, number>>) => {
  const redis = await startRedis()
  const connection = await connectQueue(redis.url)
  const start = performance.now()
  await submitRun(connection, file, { name: 'simulation', chunk: chunk!, maxWaiting: 1e9 })
  const { answers } = keysOf(await findRun(connection, 'simulation'))
  const submitted = performance.now()
  const stop = new AbortController()
  const connections = await Promise.all(Array.from({ length: count }, () => connectQueue(redis.url)))
  const work = connections.map((inner) =>
    workOnRuns(inner, {
      batch: batch!,
      stop: stop.signal,
      startEngine: async () => fixedEngine({ batch: batch!, delay: delay! })
    })
  )
  const cpu = process.cpuUsage()
  const began = performance.now()
  while ((await connection.store.count(answers)) < rows!) await setTimeout(20)
  const done = performance.now()
  const { user, system } = process.cpuUsage(cpu)
  stop.abort()
  await Promise.all(work)
  const out = `${file}.out.jsonl`
  const collectStart = performance.now()
  const { answered, errors } = await collectRun(connection, { out })
  if (answered !== rows || errors > 0) throw new Error(`${answered} answers and ${errors} errors for ${rows} rows`)
  const seconds = (from: number, to: number): string => ((to - from) / 1000).toFixed(1)
  const rate = (1000 * rows) / (done - began)
  const ideal = (count * batch! * 1000) / delay!
  const cells = [
    count,
    rows!,
    seconds(start, submitted),
    seconds(began, done),
    rate.toFixed(0),
    `${((100 * rate) / ideal).toFixed(0)} %`
  ]
  console.log(
    `| ${[...cells, `${((user + system) / rows).toFixed(0)} µs`, seconds(collectStart, performance.now())].join(' | ')} |`
  )
  for (const inner of [...connections, connection]) await inner.close()
  await redis.close()
}

const writeQuestions = (file: string, rows: number): Promise<void> =>
  writeFile(file, Array.from({ length: rows }, (_, i) => `${JSON.stringify({ question: `question ${i}` })}\n`).join(''))

const run = async (flags: Flags): Promise<void> => {
  if (!hasRedis) throw new Error('redis-server is not installed: apt-get install redis-server')
  const [delay, batch, chunk] = [flags.delay, flags.batch, flags.chunk].map(Number)
  const sizes = flags.rows.split(',').map(Number)
  const dir = await mkdtemp(join(tmpdir(), 'simulation-'))
  const file = join(dir, 'questions.jsonl')
  console.log(
    '| workers | rows | submit, s | work, s | rows/s | of ideal | CPU a row | collect, s |\n|---|---|---|---|---|---|---|---|'
  )
  for (const [i, count] of flags.workers.split(',').map(Number).entries()) {
    const rows = sizes[i] ?? sizes.at(-1)!
    await writeQuestions(file, rows)
    await simulate(file, count, { rows, delay: delay!, batch: batch!, chunk: chunk! })
  }
  await rm(dir, { recursive: true })
}

await new Command('simulate:jobs')
  .description('throughput of the queue by number of workers, with a model of fixed delay')
  .option('--rows <list>', 'rows, for all or each number of workers', '100000')
  .option('--workers <list>', 'numbers of workers', '1,2,4,8,16')
  .option('--delay <ms>', 'milliseconds of an answer', '60')
  .option('--batch <n>', 'answers at a time of a worker', '8')
  .option('--chunk <n>', 'rows of a job', '32')
  .action(run)
  .parseAsync()
