import type { RowRecord } from '../rows/row-record.js'

/** A row without an answer, as the list of dead letters has it. */
export interface DeadRow {
  readonly row: number
  readonly id?: string | number
  readonly error: string
  /** Machine and process of the worker. */
  readonly worker: string
  readonly record: RowRecord
}

/** A worker's sign of life. */
export interface WorkerReport {
  readonly rows: number
  /** Unix times in milliseconds. */
  readonly since: number
  readonly lastSign: number
}
