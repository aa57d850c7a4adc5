import type { RowRecord } from '../rows/row-record.js'

/** Version of the data of runs and chunks; a worker refuses others. */
export const JOBS_VERSION = 1

/** The data of a job: consecutive rows of a file of questions. */
export interface Chunk {
  readonly version: number
  readonly records: readonly RowRecord[]
  /** Rows whose errors are replaced by new answers. */
  readonly isRetry?: true
}

/** A copy with bytes as data URLs, which JSON can have. */
const withoutBytes = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return `data:application/octet-stream;base64,${Buffer.from(value).toString('base64')}`
  if (Array.isArray(value)) return value.map(withoutBytes)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withoutBytes(inner)]))
}

/** The chunk of rows, as plain data. */
export const toChunk = (records: readonly RowRecord[]): Chunk => ({
  version: JOBS_VERSION,
  records: records.map((record) => withoutBytes(record) as RowRecord)
})
