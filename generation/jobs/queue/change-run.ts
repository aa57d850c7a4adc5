import { randomUUID } from 'node:crypto'
import { toChunk } from './job-chunk.js'
import type { QueueConnection } from './queue-connection.js'
import { findRun, keysOf, removeRun } from './run-info.js'
import { deadRows } from './run-status.js'
import type { DeadRow } from './run-types.js'

/** Rows of a job of retried rows. */
const CHUNK = 32

export interface Retried {
  readonly name: string
  /** Dead letters that are in the queue again. */
  readonly rows: number
  /** Failed jobs that are in the queue again. */
  readonly jobs: number
}

/**
 * Puts failed jobs and all rows with errors into the queue again. Their answers replace the errors when they come; until then the errors
 * stay, so that an interruption loses no row.
 */
export const retryRun = async (connection: QueueConnection, named?: string): Promise<Retried> => {
  const run = await findRun(connection, named)
  const { name } = run
  const queue = connection.queue(name)
  const { failed: jobs = 0 } = await queue.getJobCounts('failed')
  if (jobs > 0) await queue.retryJobs({ state: 'failed' })
  const byRow = new Map<number, DeadRow>()
  for await (const letter of deadRows(connection.store, run)) byRow.set(letter.row, letter)
  const letters = [...byRow.values()].sort((a, b) => a.row - b.row)
  const { retried, deaths } = keysOf(run)
  for (let start = 0; start < letters.length; start += CHUNK) {
    const chunk = letters.slice(start, start + CHUNK)
    const fields = chunk.map(({ row }) => String(row))
    await connection.store.delete(deaths, fields)
    await connection.store.set(
      retried,
      fields.map((field) => [field, '1'] as const)
    ) // before the job, whose answers delete the marks
    const data = { ...toChunk(chunk.map(({ record }) => record)), isRetry: true } as const
    const jobId = `${run.id}-retry-${randomUUID().slice(0, 8)}-${chunk[0]!.row}`
    await queue.add('rows', data, { jobId, attempts: 3, backoff: { type: 'exponential', delay: 1000 } })
  }
  return { name, rows: letters.length, jobs }
}

/** Takes the waiting jobs of a run from the queue; workers stop after the rows in progress. With `remove` its answers are deleted too. */
export const cancelRun = async (
  connection: QueueConnection,
  named: string | undefined,
  { remove = false }: { readonly remove?: boolean | undefined } = {}
): Promise<{ readonly name: string; readonly rows: number; readonly answered: number }> => {
  const run = await findRun(connection, named)
  const { name } = run
  const { store } = connection
  const keys = keysOf(run)
  await store.set(keys.state, [['cancelled', String(Date.now())]])
  const queue = connection.queue(name)
  await queue.drain(true)
  const answered = await store.count(keys.answers)
  if (remove) {
    await queue.obliterate({ force: true })
    await removeRun(store, run)
  }
  return { name, rows: run.rows, answered }
}
