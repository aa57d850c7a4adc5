import { hostname } from 'node:os'
import { type Job, UnrecoverableError, WaitingError } from 'bullmq'
import { answerRows, type RowEngine } from '../answer-rows.js'
import { failedAnswer, type RowAnswer } from '../answers/row-answer.js'
import type { RowRecord } from '../rows/row-record.js'
import { rowId } from '../rows/row-request.js'
import type { HashStore } from './hash-store.js'
import { type Chunk, JOBS_VERSION } from './job-chunk.js'
import { keysOf, type RunInfo } from './run-info.js'
import type { DeadRow } from './run-types.js'

/** Machine and process of this worker. */
export const workerName = `${hostname()}:${process.pid}`

/** Workers that may end while they have a row alone, before the row is given up. */
const MAX_DEATHS = 2

export interface ChunkContext {
  readonly store: HashStore
  readonly run: RunInfo
  readonly engine: RowEngine
  readonly batch: number
  /** Ends the chunk after the rows in progress; the others return to the queue. */
  readonly stop: AbortSignal
  /** Runs one piece of work after the other: a row whose worker may end is alone, so that no other row is counted with it. */
  readonly alone: (work: () => Promise<void>) => Promise<void>
  /** Called with every row; waits where the worker would be faster than its rate. */
  readonly onRow: () => Promise<void>
}

/** Removes the letter of a retried row that has an answer. */
const forgetLetter = async ({ store, run }: ChunkContext, fields: readonly string[]): Promise<void> => {
  const { dead, retried } = keysOf(run)
  await store.delete(dead, fields)
  await store.delete(retried, fields)
}

/** Rows of the chunk that still need an answer; of a retried chunk also those with errors. */
const missingRows = async (context: ChunkContext, { records, isRetry }: Chunk): Promise<readonly RowRecord[]> => {
  const found = await context.store.get(
    keysOf(context.run).answers,
    records.map(({ row }) => String(row))
  )
  const isDone = (text: string | undefined): boolean =>
    text !== undefined && !(isRetry && (JSON.parse(text) as RowAnswer).error !== null)
  const done = records.filter((_, i) => isDone(found[i])).map(({ row }) => String(row))
  if (isRetry && done.length > 0) await forgetLetter(context, done) // a worker ended between an answer and its letter
  return records.filter((_, i) => !isDone(found[i]))
}

/** Writes an answer: the first of a row wins, and one of a retried row replaces an error. Rows with errors become dead letters. */
const putAnswer = async (context: ChunkContext, record: RowRecord, answer: RowAnswer, isRetry: boolean): Promise<void> => {
  const { store, run } = context
  const { answers, dead, retried } = keysOf(run)
  const field = String(answer.row)
  const { row, id, error } = answer
  if (error !== null) {
    const letter: DeadRow = { row, ...(id === undefined ? {} : { id }), error, worker: workerName, record }
    await store.set(dead, [[field, JSON.stringify(letter)]])
  }
  await store[isRetry ? 'set' : 'setNew'](answers, [[field, JSON.stringify(answer)]])
  if (!isRetry) return
  if (error === null) await forgetLetter(context, [field])
  else await store.delete(retried, [field])
}

/** Answers the rows of a chunk whose worker ended: one after the other, so that a row that ends workers is found and given up. */
const answerOneByOne = async (context: ChunkContext, rows: readonly RowRecord[], put: (answer: RowAnswer) => Promise<void>) => {
  const { store, run, stop, alone } = context
  const { deaths } = keysOf(run)
  const answerAlone = async (record: RowRecord): Promise<void> => {
    const field = String(record.row)
    const before = (await store.increment(deaths, field)) - 1
    if (before < MAX_DEATHS) await answerRows([record], { ...context, settings: run.settings, batch: 1, onAnswer: put })
    else await put(failedAnswer(record.row, rowId(record, run.settings), `${before} workers ended while they answered this row.`))
    await store.delete(deaths, [field])
  }
  for (const record of rows) await alone(async () => (stop.aborted ? undefined : answerAlone(record)))
}

/**
 * Answers a job. Its rows have their answers one by one as they come, so that a job that runs twice has one answer for each row. Throws
 * an `UnrecoverableError` for a job of another version, and a `WaitingError` after `stop`: the job returns to the queue.
 */
export const answerChunk = async (job: Job<Chunk>, token: string | undefined, context: ChunkContext): Promise<void> => {
  const { version, records, isRetry = false } = job.data ?? {}
  if (version !== JOBS_VERSION || !Array.isArray(records))
    throw new UnrecoverableError(
      `job ${job.id}: it was submitted by another version of internvl (format ${version}, this worker reads ${JOBS_VERSION}); use the same version for all commands, then jobs retry`
    )
  const { store, run, onRow, stop } = context
  const [cancelled] = await store.get(keysOf(run).state, ['cancelled'])
  if (cancelled !== undefined) return
  const byRow = new Map<number, RowRecord>((records as readonly RowRecord[]).map((record) => [record.row, record]))
  const put = async (answer: RowAnswer): Promise<void> => {
    await putAnswer(context, byRow.get(answer.row)!, answer, isRetry)
    await onRow()
  }
  const missing = await missingRows(context, job.data)
  try {
    if (job.stalledCounter > 0) await answerOneByOne(context, missing, put)
    else await answerRows(missing, { ...context, settings: run.settings, onAnswer: put })
  } catch (error) {
    if (!stop.aborted) throw error
  }
  if (!stop.aborted || (await missingRows(context, job.data)).length === 0) return
  await job.moveToWait(token)
  throw new WaitingError()
}
