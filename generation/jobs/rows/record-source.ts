import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { extname } from 'node:path'
import { errorText, InternVLError, issue } from '../../../lib/error.js'
import { isJsonArray } from '../../evaluate/eval-dataset.js'
import type { ReadRecords, RecordReader } from './row-record.js'

/** A file of questions. */
export interface RecordSource {
  readonly file: string
  /** Number of rows. */
  readonly rows: number
  /** SHA-256 of the file. */
  readonly sha256: string
  readonly read: ReadRecords
}

const readerOf = async (file: string): Promise<RecordReader> => {
  const extension = extname(file).toLowerCase()
  if (extension === '.parquet') return (await import('./parquet-records.js')).parquetReader(file)
  if (extension === '.csv' || extension === '.tsv')
    return (await import('./csv-records.js')).csvReader(file, extension === '.tsv' ? '\t' : ',')
  const { arrayReader, jsonlReader } = await import('./json-records.js')
  return (await isJsonArray(file)) ? arrayReader(file) : jsonlReader(file)
}

const hashOf = async (file: string): Promise<string> => {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(chunk)
  return hash.digest('hex')
}

const unreadable = (file: string, reason: string): InternVLError =>
  new InternVLError([issue('DatasetMissing', `${file}: cannot be read (${reason})`, { path: file })])

/**
 * Opens a file of questions: Parquet, CSV or TSV by its extension, else jsonl or a JSON array. Throws an `InternVLError` for a file
 * that cannot be read, is damaged, or has no rows.
 */
export const openRecords = async (file: string): Promise<RecordSource> => {
  const info = await stat(file).catch((error: NodeJS.ErrnoException) => {
    throw unreadable(file, error.code ?? error.message)
  })
  if (!info.isFile()) throw unreadable(file, 'it is not a file')
  try {
    const [{ read, count }, sha256] = [await readerOf(file), await hashOf(file)]
    const rows = await count()
    if (rows === 0) throw new InternVLError([issue('DatasetEmpty', `${file}: no rows; give a file with one question a row`)])
    return { file, rows, sha256, read }
  } catch (error) {
    throw error instanceof InternVLError ? error : unreadable(file, errorText(error))
  }
}
