import { rm } from 'node:fs/promises'
import { InternVLError, issue } from '../../../lib/error.js'
import { formatOf } from '../answers/answer-file.js'
import { type AnswerFormat, linesOf } from '../answers/answer-lines.js'
import { writeTable } from '../answers/answer-table.js'
import { replaceFile, restoreOrder } from '../answers/restore-order.js'
import type { RowAnswer } from '../answers/row-answer.js'
import type { QueueConnection } from './queue-connection.js'
import { findRun, keysOf } from './run-info.js'
import { isComplete } from './run-status.js'

export interface CollectOptions {
  readonly name?: string | undefined
  /** File of answers; an earlier one is replaced. */
  readonly out: string
  /** Format of the file; default: by its extension, and that of OpenAI for OpenAI's batch files. */
  readonly format?: AnswerFormat | undefined
  /** Writes the answers so far of a run that is not complete. */
  readonly partial?: boolean | undefined
}

export interface Collected {
  readonly name: string
  readonly rows: number
  readonly answered: number
  readonly errors: number
}

/** Bytes of lines that are written at once. */
const BLOCK = 2 ** 20

/**
 * Writes the answers of a run in the order of rows; the file is complete or not there. Throws an `InternVLError` for a run that is not
 * complete, unless with `partial`.
 */
export const collectRun = async (connection: QueueConnection, options: CollectOptions): Promise<Collected> => {
  const { out, partial = false } = options
  const run = await findRun(connection, options.name)
  const { name } = run
  const { store } = connection
  const { answers, state } = keysOf(run)
  const [cancelled] = await store.get(state, ['cancelled'])
  if (!partial && (cancelled !== undefined || !(await isComplete(store, run)))) {
    const done = await store.count(answers)
    const what = cancelled === undefined ? 'is not complete' : 'was cancelled'
    throw new InternVLError([
      issue(
        'JobsRun',
        `run ${name}: it ${what}: ${done} of ${run.rows} rows are answered; give --wait to wait, or --partial to take these`
      )
    ])
  }
  const format = options.format ?? formatOf(out, run.isOpenAI)
  const isTable = format === 'csv' || format === 'parquet'
  const lines = linesOf(format)
  const failed = new Map<number, boolean>()
  const writeLines = (file: string): Promise<void> =>
    replaceFile(file, async (handle, temporary) => {
      let block = ''
      for await (const [, text] of store.scan(answers)) {
        const answer = JSON.parse(text) as RowAnswer
        failed.set(answer.row, answer.error !== null)
        block += `${lines.toLine(answer)}\n`
        if (block.length < BLOCK) continue
        await handle.appendFile(block)
        block = ''
      }
      await handle.appendFile(block)
      if (!isTable) await restoreOrder(temporary, lines)
    })
  const journal = `${out}.${process.pid}.jsonl`
  try {
    await writeLines(isTable ? journal : out)
    if (isTable) await writeTable(journal, out, format)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    throw new InternVLError([issue('AnswerFile', `${out}: cannot be written (${code})`, { path: out })])
  } finally {
    if (isTable) await rm(journal, { force: true })
  }
  return { name, rows: run.rows, answered: failed.size, errors: [...failed.values()].filter(Boolean).length }
}
