/** Hashes of texts in a database, each with a key and fields; the state of runs beside their queues. */
export interface HashStore {
  /** Sets fields that are absent; of two writers of a field the first wins. */
  readonly setNew: (key: string, entries: readonly (readonly [field: string, value: string])[]) => Promise<void>
  readonly set: (key: string, entries: readonly (readonly [field: string, value: string])[]) => Promise<void>
  /** Values of fields, in order. */
  readonly get: (key: string, fields: readonly string[]) => Promise<readonly (string | undefined)[]>
  readonly delete: (key: string, fields: readonly string[]) => Promise<void>
  /** Adds 1 to a field that is a number, 0 if absent, and returns the sum. */
  readonly increment: (key: string, field: string) => Promise<number>
  /** Number of fields. */
  readonly count: (key: string) => Promise<number>
  /** All fields, in any order; a field that is set meanwhile may be missing, or come twice. */
  readonly scan: (key: string) => AsyncGenerator<readonly [field: string, value: string]>
  /** Deletes whole hashes. */
  readonly drop: (keys: readonly string[]) => Promise<void>
  readonly close: () => Promise<void>
}
