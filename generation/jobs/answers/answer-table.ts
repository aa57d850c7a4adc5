import { stringify } from 'csv-stringify/sync'
import { linesOf } from './answer-lines.js'
import { readInOrder, replaceFile } from './restore-order.js'
import type { RowAnswer } from './row-answer.js'

/** Columns of a table of answers, in order. */
const COLUMNS = ['row', 'id', 'answer', 'tokens', 'finishReason', 'logprob', 'error'] as const

/** Answers of a journal in the order of rows. */
async function* answersOf(journal: string): AsyncGenerator<RowAnswer> {
  for await (const line of readInOrder(journal, linesOf('jsonl'))) yield JSON.parse(line) as RowAnswer
}

const writeCsv = (journal: string, out: string): Promise<void> =>
  replaceFile(out, async (handle) => {
    await handle.appendFile(`${COLUMNS.join(',')}\n`)
    for await (const answer of answersOf(journal)) await handle.appendFile(stringify([answer], { columns: [...COLUMNS] }))
  })

const writeParquet = (journal: string, out: string): Promise<void> =>
  replaceFile(out, async (_, temporary) => {
    const { fileWriter, parquetWriteRows } = await import('hyparquet-writer')
    const rows = async function* () {
      for await (const { id, ...answer } of answersOf(journal)) yield { ...answer, id: id === undefined ? null : String(id) }
    }
    await parquetWriteRows({
      writer: fileWriter(temporary),
      rows: rows(),
      columns: [
        { name: 'row', type: 'INT32', nullable: false },
        { name: 'id', type: 'STRING', nullable: true },
        { name: 'answer', type: 'STRING', nullable: true },
        { name: 'tokens', type: 'INT32', nullable: false },
        { name: 'finishReason', type: 'STRING', nullable: true },
        { name: 'logprob', type: 'DOUBLE', nullable: true },
        { name: 'error', type: 'STRING', nullable: true }
      ],
      rowGroupSize: 100_000
    })
  })

/** Writes a table in the order of rows from a journal of answers; the file is complete or not there. */
export const writeTable = (journal: string, out: string, format: 'csv' | 'parquet'): Promise<void> =>
  format === 'csv' ? writeCsv(journal, out) : writeParquet(journal, out)
