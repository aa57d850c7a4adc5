import * as E from 'fp-ts/lib/Either.js'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import type { ReadRecords, RecordReader } from './row-record.js'

/** Rows that are decoded together; images in bytes make a row large. */
const GROUP = 256

/** 64-bit integers as numbers, which JSON can write; as text beyond 2^53. */
const plain = (value: unknown): unknown => {
  if (typeof value !== 'bigint') return value
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : String(value)
}

/** A Parquet file. Columns of bytes, such as `image.bytes` of Hugging Face's data sets, are `Uint8Array`s. */
export const parquetReader = async (file: string): Promise<RecordReader> => {
  const buffer = await asyncBufferFromFile(file)
  const metadata = await parquetMetadataAsync(buffer)
  const rows = Number(metadata.num_rows)
  const read: ReadRecords = async function* (start) {
    for (let rowStart = start; rowStart < rows; rowStart += GROUP) {
      const rowEnd = Math.min(rows, rowStart + GROUP)
      const group = await parquetReadObjects({ file: buffer, metadata, compressors, rowStart, rowEnd, utf8: false })
      for (const [i, values] of group.entries()) {
        const given = Object.entries(values).flatMap(([name, value]) =>
          value === null || value === undefined ? [] : [[name, plain(value)] as const]
        )
        yield { row: rowStart + i, where: `${file}[${rowStart + i}]`, record: E.right(Object.fromEntries(given)) }
      }
    }
  }
  return { read, count: async () => rows }
}
