import type * as E from 'fp-ts/lib/Either.js'
import type { EngineRequest, EngineResult, RequestOptions } from '../../engine/engine-types.js'
import type { ColumnNames } from './media-columns.js'

/** One row of a file of questions; left with one sentence where the row cannot be read. */
export interface RowRecord {
  /** Index in the file, from 0. */
  readonly row: number
  /** File and line number. */
  readonly where: string
  readonly record: E.Either<string, Readonly<Record<string, unknown>>>
}

/** Rows from the index `start` on; the caller may stop at any row. */
export type ReadRecords = (start: number) => AsyncGenerator<RowRecord>

/** Reader and row counter of one file format. */
export interface RecordReader {
  readonly read: ReadRecords
  readonly count: () => Promise<number>
}

/** Number of rows that a reader yields. */
export const countRecords = async (read: ReadRecords): Promise<number> => {
  let count = 0
  for await (const _ of read(0)) count++
  return count
}

/** Settings with which the rows of a file become requests. */
export interface RowSettings {
  readonly columns: ColumnNames
  /** Folder of relative paths of images and videos. */
  readonly folder: string
  /** Question of the rows that have none. */
  readonly prompt?: string | undefined
  /** System message of the rows that have none. */
  readonly system?: string | undefined
  /** Options of every request. `seed` is that of row 0; row n has `seed + n`, so that an answer does not depend on the other rows. */
  readonly options: RequestOptions
}

/** The name of a row in its answer. */
export type RowId = string | number

/** The request of one row. */
export interface RowRequest {
  readonly request: EngineRequest
  /** The body of OpenAI's response, for rows of OpenAI's batch files. */
  readonly toBody?: (result: EngineResult) => object
}
