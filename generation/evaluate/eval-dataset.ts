import { open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { errorText, type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { type DatasetRow, rowFromJson } from './dataset-row.js'

export type { DatasetRow } from './dataset-row.js'

const parseJson = (text: string, tag: string, where: string): E.Either<Issues, unknown> =>
  E.tryCatch(
    () => JSON.parse(text) as unknown,
    (error) => [issue(tag, `${where}: not JSON (${errorText(error)})`, { where })]
  )

/** Parses one line of a jsonl file; `where` names the line in errors, `folder` is the folder of its images and videos. */
export const parseRow = (line: string, where: string, folder: string): E.Either<Issues, DatasetRow> =>
  pipe(
    parseJson(line, 'DatasetRow', where),
    E.chain((json) => rowFromJson(json, where, folder))
  )

/** The valid rows of a file, and the issues of all other rows with file and line number. */
export interface EvalRows {
  readonly rows: readonly DatasetRow[]
  readonly issues: readonly Issue[]
}

const collect = (rows: readonly E.Either<Issues, DatasetRow>[]): EvalRows => ({
  rows: rows.flatMap((row) => (E.isRight(row) ? [row.right] : [])),
  issues: rows.flatMap((row) => (E.isLeft(row) ? row.left : []))
})

const isArrayText = (text: string): boolean => /^\uFEFF?\s*\[/.test(text)

/** Whether a file holds a JSON array, by its first characters; false for a file that cannot be read. */
export const isJsonArray = async (file: string): Promise<boolean> => {
  const handle = await open(file).catch(() => undefined)
  if (handle === undefined) return false
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(4096), 0, 4096)
    return isArrayText(buffer.toString('utf8', 0, bytesRead))
  } catch {
    return false
  } finally {
    await handle.close()
  }
}

const parseArray = (text: string, file: string, folder: string): E.Either<Issues, EvalRows> =>
  pipe(
    parseJson(text, 'DatasetFile', file),
    E.map((json) => collect((json as readonly unknown[]).map((row, i) => rowFromJson(row, `${file}[${i}]`, folder))))
  )

const parseLines = (text: string, file: string, folder: string): EvalRows => {
  const lines = text.split('\n').map((line, i) => ({ line, where: `${file}:${i + 1}` }))
  return collect(lines.filter(({ line }) => line.trim() !== '').map(({ line, where }) => parseRow(line, where, folder)))
}

/** Reads the valid rows of a jsonl file or a JSON array; image paths are relative to `folder`, by default the folder of the file. */
export const readRows = (file: string, folder: string = dirname(file)): TE.TaskEither<Issues, EvalRows> =>
  pipe(
    TE.tryCatch(
      () => readFile(file, 'utf8'),
      (error): Issues => {
        const { code } = error as NodeJS.ErrnoException
        return [issue('DatasetMissing', `${file}: cannot be read (${code})`, { path: file })]
      }
    ),
    TE.map((text) => text.replace(/^\uFEFF/, '')),
    TE.chainEitherK((text) => (isArrayText(text) ? parseArray(text, file, folder) : E.right(parseLines(text, file, folder))))
  )

/**
 * Reads a dataset: a jsonl file, or a JSON array as LLaVA's. A row is a conversation of InternVL (`image`, `video`, `conversations` with
 * `<image>` and `<video>` placeholders), Hugging Face `messages`, or TRL's `prompt`, `chosen` and `rejected`. Paths are relative to the
 * file. Errors: every invalid row with file and line number, and `DatasetEmpty` for a file without rows.
 */
export const readDataset = (file: string): TE.TaskEither<Issues, readonly DatasetRow[]> =>
  pipe(
    readRows(file),
    TE.chainEitherK(({ rows, issues }) => {
      const isEmpty = rows.length === 0 && issues.length === 0
      const empty = issue('DatasetEmpty', `${file}: no rows; give a jsonl file with one conversation a line`, { path: file })
      return whenValid(isEmpty ? [empty] : issues, () => rows)
    })
  )
