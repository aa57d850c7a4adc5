import { mkdir, readFile, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, extname } from 'node:path'
import { InternVLError, issue } from '../../../lib/error.js'
import { exists, isProcessRunning } from '../../../lib/files.js'
import { type AnswerJournal, openJournal } from './answer-journal.js'
import { type AnswerFormat, linesOf } from './answer-lines.js'
import { writeTable } from './answer-table.js'
import { replaceFile, restoreOrder } from './restore-order.js'

/** Everything that the answers of a file depend on, each by name; a file is only continued with equal values. */
export type AnswerIdentity = Readonly<Record<string, string | number | null>>

interface State {
  readonly version: 1
  readonly identity: AnswerIdentity
  readonly host: string
  readonly pid: number
  readonly complete?: { readonly rows: number; readonly errors: number }
}

export interface AnswerFileOptions {
  readonly format: AnswerFormat
  readonly identity: AnswerIdentity
  /** Deletes earlier answers. */
  readonly restart?: boolean | undefined
  /** Answers the rows with errors again. */
  readonly retryErrors?: boolean | undefined
}

/** A file of answers that is written, and continued after an interruption. */
export interface AnswerFile extends Omit<AnswerJournal, 'close'> {
  /** Ends the file: `complete` restores the order, and writes CSV or Parquet. */
  readonly close: (complete: boolean) => Promise<void>
}

const refuse = (out: string, reason: string): never => {
  throw new InternVLError([issue('AnswerFile', `${out}: ${reason}`, { path: out })])
}

const stateFile = (out: string): string => `${out}.batch.json`

const readState = async (out: string): Promise<State | undefined> => {
  const text = await readFile(stateFile(out), 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  try {
    const state = JSON.parse(text) as State
    if (state.version === 1) return state
  } catch {}
  return refuse(out, `${stateFile(out)} is not of this version; --restart begins again, another --out leaves both as they are`)
}

const writeState = (out: string, state: State): Promise<void> =>
  replaceFile(stateFile(out), (handle) => handle.writeFile(`${JSON.stringify(state, null, 2)}\n`))

const isRunning = ({ host, pid }: State): boolean => host === hostname() && pid !== process.pid && isProcessRunning(pid)

/** Refuses a file that a process writes. */
const refuseWritten = (out: string, state: State): void => {
  if (isRunning(state) && !state.complete) refuse(out, `process ${state.pid} writes it now`)
}

/** Removes the answers of an earlier run. */
const removeAnswers = async (out: string, journalFile: string): Promise<void> => {
  const state = await readState(out).catch(() => undefined) // a state of another version is removed too
  if (state) refuseWritten(out, state)
  for (const file of [out, journalFile, stateFile(out)]) await rm(file, { force: true })
}

/** Refuses a file whose answers belong to other questions, another model or other options. */
const checkState = async (out: string, identity: AnswerIdentity): Promise<State | undefined> => {
  const state = await readState(out)
  if (!state) {
    if (await exists(out))
      refuse(out, 'exists and was not written by this command; give another --out, or --restart to replace it')
    return undefined
  }
  const names = [...new Set([...Object.keys(identity), ...Object.keys(state.identity)])]
  const other = names.filter((name) => identity[name] !== state.identity[name])
  if (other.length > 0)
    refuse(out, `its answers are of another ${other.join(' and another ')}; give another --out, or --restart to replace them`)
  refuseWritten(out, state)
  return state
}

/** The format of a file of answers by its extension; a batch file of OpenAI is answered as one. */
export const formatOf = (out: string, isOpenAI: boolean): AnswerFormat => {
  const extension = extname(out).toLowerCase()
  if (extension === '.csv') return 'csv'
  if (extension === '.parquet') return 'parquet'
  return isOpenAI ? 'openai' : 'jsonl'
}

/**
 * Opens a file of answers. Lines of jsonl are appended to `out` as they come; the lines of CSV and Parquet to `OUT.batch.jsonl`, from
 * which `out` is written at the end. `OUT.batch.json` says what the answers belong to. Throws an `InternVLError` for a file of other answers.
 */
export const openAnswers = async (out: string, options: AnswerFileOptions): Promise<AnswerFile> => {
  const { format, identity, restart = false, retryErrors = false } = options
  const isTable = format === 'csv' || format === 'parquet'
  const [journalFile, lines] = [isTable ? `${out}.batch.jsonl` : out, linesOf(format)]
  const target = await stat(out).catch(() => undefined)
  if (target && !target.isFile()) refuse(out, 'is not a file; give the name of a new file')
  if (restart) await removeAnswers(out, journalFile)
  await checkState(out, identity)
  const state: State = { version: 1, identity, host: hostname(), pid: process.pid }
  try {
    await mkdir(dirname(out), { recursive: true })
    await writeState(out, state)
    const { done, errors, append, close } = await openJournal(journalFile, lines, { retryErrors })
    return {
      ...{ done, errors, append },
      close: async (complete) => {
        await close()
        if (!complete) return
        if (isTable) await writeTable(journalFile, out, format)
        else await restoreOrder(out, lines)
        await writeState(out, { ...state, complete: { rows: done.size, errors: errors() } })
      }
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === undefined ? Promise.reject(error) : refuse(out, `cannot be written (${code})`)
  }
}
