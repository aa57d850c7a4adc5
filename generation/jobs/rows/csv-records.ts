import { createReadStream } from 'node:fs'
import { parse } from 'csv-parse'
import * as E from 'fp-ts/lib/Either.js'
import { countRecords, type ReadRecords, type RecordReader } from './row-record.js'

interface ParsedRow {
  readonly record: Readonly<Record<string, string>>
  readonly info: { readonly lines: number }
}

/** A CSV file with a header (RFC 4180). Empty cells are absent, and so are the cells of a row that is too short. */
export const csvReader = (file: string, delimiter: string): RecordReader => {
  const read: ReadRecords = async function* (start) {
    const parser = parse({ columns: true, bom: true, info: true, relax_column_count: true, skip_empty_lines: true, delimiter })
    const stream = createReadStream(file)
    stream.on('error', (error) => parser.destroy(error))
    let row = 0
    try {
      for await (const { record, info } of stream.pipe(parser) as AsyncIterable<ParsedRow>) {
        const cells = Object.fromEntries(Object.entries(record).filter(([, cell]) => cell !== ''))
        if (row >= start) yield { row, where: `${file}:${info.lines}`, record: E.right(cells) }
        row++
      }
    } finally {
      stream.destroy()
    }
  }
  return { read, count: () => countRecords(read) }
}
