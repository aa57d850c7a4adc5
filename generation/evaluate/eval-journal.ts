import { appendFile, mkdir, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

interface Entry<A> {
  /** Index of the row in the dataset. */
  readonly row: number
  readonly result: A
}

/** Results of the rows of an interrupted evaluation, one JSON text a line. A line that was cut off, or is not an entry, is dropped. */
const readEntries = async <A>(file: string): Promise<ReadonlyArray<Entry<A>>> => {
  const text = await readFile(file, 'utf8').catch(() => '')
  return text.split('\n').flatMap((line) => {
    try {
      const entry = JSON.parse(line) as Entry<A> | null
      return Number.isInteger(entry?.row) && entry?.result ? [entry] : []
    } catch {
      return []
    }
  })
}

export interface JournalOptions<Row, A> {
  readonly batchSize: number
  /** Ignore the results of an interrupted evaluation. */
  readonly restart?: boolean | undefined
  /** The results of a batch of rows, in order. */
  readonly evaluate: (batch: readonly Row[]) => Promise<readonly A[]>
  /** Called at the start and after each batch with the number of finished rows; `resumed` of them are from the journal. */
  readonly onProgress?: (done: number, resumed: number) => void
}

/**
 * The result of every row in order, by its index: rows may share an id. The results are stored in the journal `file` after each
 * batch, and an interrupted evaluation resumes after the last of them. The caller deletes the journal. Without a file nothing is stored.
 */
export const evaluateRows = async <Row, A>(
  rows: readonly Row[],
  file: string | undefined,
  { batchSize, restart = false, evaluate, onProgress }: JournalOptions<Row, A>
): Promise<readonly A[]> => {
  if (file !== undefined && restart) await rm(file, { force: true })
  if (file !== undefined) await mkdir(dirname(file), { recursive: true })
  const earlier = file === undefined ? [] : await readEntries<A>(file)
  const results = new Map(earlier.map(({ row, result }) => [row, result]))
  const missing = [...rows.keys()].filter((row) => !results.has(row))
  const resumed = rows.length - missing.length
  onProgress?.(resumed, resumed)
  for (let start = 0; start < missing.length; start += batchSize) {
    const batch = missing.slice(start, start + batchSize)
    const found = await evaluate(batch.map((row) => rows[row]!))
    const entries = batch.map((row, i): Entry<A> => ({ row, result: found[i]! }))
    if (file !== undefined) await appendFile(file, `\n${entries.map((entry) => JSON.stringify(entry)).join('\n')}\n`) // first ends a line that was cut off
    for (const { row, result } of entries) results.set(row, result)
    onProgress?.(resumed + start + batch.length, resumed)
  }
  return rows.map((_, row) => results.get(row)!)
}
