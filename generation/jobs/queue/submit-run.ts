import { randomUUID } from 'node:crypto'
import { resolve } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { InternVLError, issue } from '../../../lib/error.js'
import { openRecords } from '../rows/record-source.js'
import type { RowRecord } from '../rows/row-record.js'
import { isOpenAIFile, type RowOptions, rowSettings } from '../run-batch.js'
import { JOBS_VERSION, toChunk } from './job-chunk.js'
import type { QueueConnection } from './queue-connection.js'
import { keysOf, type RunInfo, registerRun } from './run-info.js'

export interface SubmitOptions extends RowOptions {
  /** Name of the run. */
  readonly name: string
  /** Rows of a job; default: 32. */
  readonly chunk?: number | undefined
  /** Jobs that may wait; submission goes on when workers have taken some. Default: 10,000. */
  readonly maxWaiting?: number | undefined
  /** Stops between two jobs; the same call continues. */
  readonly stop?: AbortSignal | undefined
  /** `isFull`: workers have to take jobs first. */
  readonly onProgress?: ((submitted: number, total: number, isFull: boolean) => void) | undefined
}

export interface Submission {
  readonly rows: number
  /** Rows in the queue, those of an earlier call included. */
  readonly submitted: number
}

/** Characters of a job's rows, above which a job has fewer rows: images as bytes are large. */
const MAX_CHARACTERS = 4 * 2 ** 20

/** Milliseconds between two looks at a full queue. */
const FULL_DELAY = 500

async function* chunksOf(records: AsyncIterable<RowRecord>, size: number): AsyncGenerator<readonly RowRecord[]> {
  let [chunk, characters]: [RowRecord[], number] = [[], 0]
  for await (const record of records) {
    chunk.push(record)
    characters += JSON.stringify(toChunk([record])).length
    if (chunk.length < size && characters < MAX_CHARACTERS) continue
    yield chunk
    chunk = []
    characters = 0
  }
  if (chunk.length > 0) yield chunk
}

const isSame = (a: RunInfo, b: RunInfo): boolean =>
  a.sha256 === b.sha256 && JSON.stringify(a.settings) === JSON.stringify(b.settings)

/** Registers the run; refuses a name under which another file, or the same with other options, was submitted. */
const register = async ({ store }: QueueConnection, given: RunInfo): Promise<RunInfo> => {
  const run = JSON.parse(JSON.stringify(given)) as RunInfo
  const registered = await registerRun(store, run)
  if (isSame(registered, run)) return registered
  const message = `run ${run.name}: it has the rows of ${registered.file} with its own options; give another --name, or remove it with jobs cancel --remove`
  throw new InternVLError([issue('JobsRun', message)])
}

/**
 * Puts the rows of a file into a queue, in jobs of `chunk` rows. Calling it again continues an interrupted submission, and a cancelled
 * run; rows that are in the queue or answered are not answered twice. Throws an `InternVLError` for a file that cannot be read, and a
 * name that has another file.
 */
export const submitRun = async (connection: QueueConnection, file: string, options: SubmitOptions): Promise<Submission> => {
  const { name, chunk = 32, maxWaiting = 10_000, stop, onProgress } = options
  const source = await openRecords(file)
  const { rows, sha256 } = source
  const run = await register(connection, {
    ...{ version: JOBS_VERSION, name, id: randomUUID().slice(0, 8), file: resolve(file), sha256, rows },
    ...{ settings: rowSettings(file, options), isOpenAI: await isOpenAIFile(source), created: Date.now() }
  })
  const { store } = connection
  const { state } = keysOf(run)
  const [before, cancelled] = await store.get(state, ['submitted', 'cancelled'])
  if (cancelled !== undefined) await store.delete(state, ['submitted', 'cancelled'])
  let submitted = cancelled === undefined ? Number(before ?? 0) : 0
  const queue = connection.queue(name)
  const waitForSpace = async (): Promise<void> => {
    for (let first = true; !stop?.aborted && (await queue.getWaitingCount()) >= maxWaiting; first = false) {
      if (first) onProgress?.(submitted, rows, true)
      await setTimeout(FULL_DELAY)
    }
  }
  for await (const records of chunksOf(source.read(submitted), chunk)) {
    await waitForSpace()
    if (stop?.aborted) break
    // a job that is in the queue already has the same id, and is not added twice
    const jobId = `${run.id}-${records[0]!.row}`
    await queue.add('rows', toChunk(records), { jobId, attempts: 3, backoff: { type: 'exponential', delay: 1000 } })
    submitted = records.at(-1)!.row + 1
    await store.set(state, [['submitted', String(submitted)]])
    onProgress?.(submitted, rows, false)
  }
  return { rows, submitted }
}
