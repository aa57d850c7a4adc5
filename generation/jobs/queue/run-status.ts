import type { HashStore } from './hash-store.js'
import type { QueueConnection } from './queue-connection.js'
import { keysOf, type RunInfo } from './run-info.js'
import type { DeadRow, WorkerReport } from './run-types.js'

/** A worker of a run. */
export interface WorkerStatus {
  /** Machine and process. */
  readonly worker: string
  readonly rows: number
  readonly rowsPerSecond: number
  /** Seconds since its last sign of life. */
  readonly silentSeconds: number
}

/** The state of a run. */
export interface RunStatus {
  readonly name: string
  readonly file: string
  readonly rows: number
  /** Rows in the queue so far. */
  readonly submitted: number
  /** Rows with an answer or an error. */
  readonly answered: number
  /** Dead letters: rows with an error, and those of them that are in the queue again. */
  readonly errors: number
  readonly retried: number
  readonly isComplete: boolean
  readonly isCancelled: boolean
  /** Jobs by state; `failed` ones have no worker any more. */
  readonly jobs: { readonly waiting: number; readonly active: number; readonly delayed: number; readonly failed: number }
  /** Reasons of failed jobs. */
  readonly failures: readonly string[]
  /** Content hash of the model. */
  readonly model: string | undefined
  readonly workers: readonly WorkerStatus[]
  readonly rowsPerSecond: number
  readonly secondsLeft: number | undefined
}

/** Milliseconds after which a worker without a sign of life is not counted. */
const MAX_SILENCE = 60_000

/** Dead letters of a run. */
export async function* deadRows(store: HashStore, run: RunInfo): AsyncGenerator<DeadRow> {
  for await (const [, text] of store.scan(keysOf(run).dead)) yield JSON.parse(text) as DeadRow
}

/** Whether every row has its answer or its error, or the run is cancelled: there is no work left. */
export const isComplete = async (store: HashStore, run: RunInfo): Promise<boolean> => {
  const { answers, state, retried } = keysOf(run)
  const [cancelled] = await store.get(state, ['cancelled'])
  if (cancelled !== undefined) return true
  return (await store.count(answers)) >= run.rows && (await store.count(retried)) === 0
}

const workersOf = async (store: HashStore, run: RunInfo): Promise<readonly WorkerStatus[]> => {
  const workers = new Map<string, WorkerStatus>()
  for await (const [worker, text] of store.scan(keysOf(run).workers)) {
    const { rows, since, lastSign } = JSON.parse(text) as WorkerReport
    const silent = Date.now() - lastSign
    const rowsPerSecond = rows / Math.max(1, (lastSign - since) / 1000)
    if (silent < MAX_SILENCE) workers.set(worker, { worker, rows, rowsPerSecond, silentSeconds: Math.round(silent / 1000) })
  }
  return [...workers.values()]
}

/** The state of a run. */
export const runStatus = async (connection: QueueConnection, run: RunInfo): Promise<RunStatus> => {
  const { store } = connection
  const { name, file, rows } = run
  const keys = keysOf(run)
  const queue = connection.queue(name)
  const { waiting = 0, prioritized = 0, paused = 0, active = 0, delayed = 0, failed = 0 } = await queue.getJobCounts()
  const failures = failed > 0 ? (await queue.getFailed(0, 9)).map((job) => job.failedReason) : []
  const [submitted, cancelled, model] = await store.get(keys.state, ['submitted', 'cancelled', 'model'])
  const [answered, errors, workers] = [await store.count(keys.answers), await store.count(keys.dead), await workersOf(store, run)]
  const rowsPerSecond = workers.reduce((sum, worker) => sum + worker.rowsPerSecond, 0)
  return {
    ...{ name, file, rows, submitted: Number(submitted ?? 0), answered, errors },
    retried: await store.count(keys.retried),
    isComplete: cancelled === undefined && (await isComplete(store, run)),
    isCancelled: cancelled !== undefined,
    jobs: { waiting: waiting + prioritized + paused, active, delayed, failed },
    ...{ failures, workers, rowsPerSecond },
    model: model === undefined ? undefined : (JSON.parse(model) as { readonly hash: string }).hash,
    secondsLeft: rowsPerSecond > 0 ? (rows - answered) / rowsPerSecond : undefined
  }
}
