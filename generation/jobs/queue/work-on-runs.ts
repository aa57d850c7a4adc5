import { setTimeout } from 'node:timers/promises'
import type { Worker } from 'bullmq'
import { InternVLError, issue } from '../../../lib/error.js'
import { EngineCrashedError, EngineError } from '../../engine/engine-errors.js'
import type { CreateEngineOptions } from '../../engine/engine-types.js'
import { modelIdentity } from '../model-identity.js'
import { type ClosableEngine, startRowEngine } from '../run-batch.js'
import { answerChunk, workerName } from './answer-chunk.js'
import type { HashStore } from './hash-store.js'
import type { Chunk } from './job-chunk.js'
import type { QueueConnection } from './queue-connection.js'
import { keysOf, type RunInfo, readRun, runNames } from './run-info.js'
import { isComplete } from './run-status.js'
import type { WorkerReport } from './run-types.js'

export interface WorkOptions {
  /** Name of the run; default: all runs, also those that come later. */
  readonly name?: string | undefined
  /** Checkpoint folder; default: the demo model. */
  readonly model?: string | undefined
  /** Options of `createEngine`. */
  readonly engine?: CreateEngineOptions | undefined
  /** Rows that are answered together; default: 8. */
  readonly batch?: number | undefined
  /** Largest number of rows a minute of this worker; default: no limit. */
  readonly rowsPerMinute?: number | undefined
  /** Seconds without a sign of life after which the job of a worker is given to another; default: 30. */
  readonly stallSeconds?: number | undefined
  /** Ends when every run is complete. */
  readonly untilDone?: boolean | undefined
  /** Ends after the rows in progress; their jobs return to the queue. */
  readonly stop?: AbortSignal | undefined
  readonly onEvent?: ((line: string) => void) | undefined
  /** Starts the engine; another one in tests. */
  readonly startEngine?: ((model: string | undefined, options: CreateEngineOptions) => Promise<ClosableEngine>) | undefined
}

/** Jobs of a run at a time: the first rows of the next one fill the batch while the last rows of a job are answered. */
const JOBS = 2

/** Milliseconds between two looks for new runs, and between two signs of life. */
const POLL = 1000

interface Identity {
  readonly hash: string
  readonly model: string
  readonly worker: string
}

/** Takes a run for this model; the first worker decides on it. Throws an `InternVLError` where the run has answers of another model. */
const bindModel = async (store: HashStore, run: RunInfo, identity: Identity): Promise<void> => {
  const { state } = keysOf(run)
  await store.setNew(state, [['model', JSON.stringify(identity)]])
  const [text] = await store.get(state, ['model'])
  const bound = JSON.parse(text!) as Identity
  if (bound.hash === identity.hash) return
  const message = `run ${run.name}: its answers are of the model ${bound.model} (content ${bound.hash}, first worker ${bound.worker}); this worker has ${identity.model} (content ${identity.hash}); start it with the same files, adapter and precision, or give the --name of another run`
  throw new InternVLError([issue('JobsModel', message)])
}

/** Waits so that there are at most `perMinute` rows a minute. */
const pace = (perMinute: number | undefined) => {
  let next = 0
  return async (): Promise<void> => {
    if (perMinute === undefined) return
    const now = Date.now()
    next = Math.max(now, next) + 60_000 / perMinute
    await setTimeout(next - now)
  }
}

/** The work on one run. */
interface RunWork {
  readonly worker: Worker<Chunk>
  /** Stops the work on this run alone. */
  readonly cancel: () => void
  readonly report: () => Promise<void>
  readonly close: () => Promise<void>
}

/** Runs pieces of work one after the other. */
const sequence = () => {
  let last: Promise<void> = Promise.resolve()
  return (work: () => Promise<void>): Promise<void> => {
    const next = last.then(work)
    last = next.catch(() => undefined)
    return next
  }
}

interface WorkContext {
  readonly connection: QueueConnection
  readonly alone: (work: () => Promise<void>) => Promise<void>
  readonly options: WorkOptions
  readonly engine: ClosableEngine
  readonly stop: AbortSignal
  readonly onFatal: (error: unknown) => void
}

const workOnRun = (context: WorkContext, run: RunInfo): RunWork => {
  const { name } = run
  const { connection, options, engine, alone, stop, onFatal } = context
  const { store } = connection
  const { batch = 8, stallSeconds = 30, rowsPerMinute, onEvent } = options
  const cancelled = new AbortController()
  const [wait, since] = [pace(rowsPerMinute), Date.now()]
  let rows = 0
  const onRow = async (): Promise<void> => {
    rows++
    await wait()
  }
  const chunkContext = { store, run, engine, alone, batch, stop: AbortSignal.any([stop, cancelled.signal]), onRow }
  const worker = connection.worker(
    name,
    async (job, token) => {
      try {
        await answerChunk(job, token, chunkContext)
      } catch (error) {
        if (error instanceof EngineError && !(error instanceof EngineCrashedError)) onFatal(error)
        throw error
      }
    },
    // rows that end workers are counted one by one, so a job may stall as often as it likes
    {
      concurrency: JOBS,
      lockDuration: stallSeconds * 1000,
      stalledInterval: stallSeconds * 1000,
      maxStalledCount: 1_000_000,
      drainDelay: 1
    }
  )
  worker.on('failed', (_, error) => onEvent?.(`run ${name}: ${error.message}`))
  worker.on('stalled', (id) => onEvent?.(`run ${name}: job ${id} returned to the queue, its worker gave no sign of life`))
  return {
    worker,
    cancel: () => cancelled.abort(),
    report: () => {
      const report: WorkerReport = { rows, since, lastSign: Date.now() }
      return store.set(keysOf(run).workers, [[workerName, JSON.stringify(report)]])
    },
    close: async () => {
      await worker.close()
      await store.delete(keysOf(run).workers, [workerName])
    }
  }
}

/** Names of the runs that need work. */
const openRuns = async (store: HashStore, named: string | undefined): Promise<ReadonlyMap<string, RunInfo>> => {
  const open = new Map<string, RunInfo>()
  for (const name of named === undefined ? await runNames(store) : [named]) {
    const run = await readRun(store, name)
    if (run && !(await isComplete(store, run))) open.set(name, run)
  }
  return open
}

/**
 * Answers the jobs of a queue until `stop`, or with `untilDone` until all runs are complete. The model runs in a process of its own, so
 * that the locks of jobs are renewed in time. Throws an `InternVLError` for a run of another version or with another model, and an
 * `EngineError` if the model cannot be run any more.
 */
export const workOnRuns = async (connection: QueueConnection, options: WorkOptions): Promise<void> => {
  const { name, model, engine: engineOptions = {}, batch = 8, untilDone = false, onEvent, startEngine = startRowEngine } = options
  const { store } = connection
  const identity = { hash: await modelIdentity(model, engineOptions), model: model ?? 'demo', worker: workerName }
  const failed = new AbortController()
  const stop = AbortSignal.any([failed.signal, ...(options.stop ? [options.stop] : [])])
  const works = new Map<string, RunWork>()
  const alone = sequence()
  let engine: ClosableEngine | undefined
  const poll = async (): Promise<boolean> => {
    const open = await openRuns(store, name)
    for (const [running, work] of works) {
      if (open.has(running)) continue
      works.delete(running)
      work.cancel()
      await work.close()
    }
    for (const [found, run] of open) {
      if (works.has(found)) continue
      await bindModel(store, run, identity)
      engine ??= await startEngine(model, { ...engineOptions, maxBatch: batch, signal: stop })
      if (stop.aborted) return true
      works.set(found, workOnRun({ connection, options, engine, alone, stop, onFatal: (error) => failed.abort(error) }, run))
      onEvent?.(`run ${found}: working as ${workerName}`)
    }
    for (const work of works.values()) await work.report()
    return untilDone && open.size === 0
  }
  try {
    while (!stop.aborted && !(await poll())) await setTimeout(POLL, undefined, { signal: stop }).catch(() => undefined)
    if (failed.signal.aborted) throw failed.signal.reason
  } finally {
    await Promise.all([...works.values()].map((work) => work.close()))
    await engine?.close()
  }
}
