import { InputError, InternVLError, type Issue, type Issues } from '../../lib/error.js'
import type { CreateEngineOptions, EngineInfo, EngineRequest, ProcessStats } from './engine-types.js'
import type { ProcessEvent } from './process/request-context.js'

/** Options of `createEngine` that the process reads, without functions. */
export type ProcessOptions = Omit<CreateEngineOptions, 'onWarning' | 'signal' | 'processorModules'> & {
  readonly processorModules: readonly string[]
}

/** Calls other than requests. */
export type CallName = 'tokenize' | 'tiling' | 'detokenize' | 'embed' | 'explain'

/** Messages from the engine to its process. */
export type ToProcess =
  | { readonly type: 'load'; readonly model: string | undefined; readonly options: ProcessOptions }
  | { readonly type: 'run'; readonly id: string; readonly request: EngineRequest }
  | { readonly type: 'abort'; readonly id: string }
  | { readonly type: 'call'; readonly id: string; readonly name: CallName; readonly args: readonly unknown[] }

/** An error as plain data. */
export interface SentError {
  readonly name: string
  readonly message: string
  readonly issues?: readonly Issue[]
}

/** One event of one request; `done` is the last, with the error of a request that failed. */
export type RequestMessage =
  | { readonly id: string; readonly event: ProcessEvent }
  | { readonly id: string; readonly done: true; readonly error?: SentError }

/** Messages from the process to the engine. */
export type FromProcess =
  | { readonly type: 'ready'; readonly info: EngineInfo }
  | { readonly type: 'load-failed'; readonly error: SentError }
  | { readonly type: 'warning'; readonly text: string }
  | { readonly type: 'events'; readonly events: readonly RequestMessage[]; readonly stats?: ProcessStats }
  | { readonly type: 'progress'; readonly id: string; readonly done: number; readonly total: number }
  | { readonly type: 'returned'; readonly id: string; readonly value?: unknown; readonly error?: SentError }

/** An error as data that another process can read. */
export const toSentError = (error: unknown): SentError => {
  if (error instanceof InternVLError)
    return { name: error.name, message: error.message, issues: error.issues.map((issue) => toPlainIssue(issue)) }
  return error instanceof Error ? { name: error.name, message: error.message } : { name: 'Error', message: String(error) }
}

/** The issue without values that cannot be sent, such as functions. */
const toPlainIssue = (issue: Issue): Issue => JSON.parse(JSON.stringify(issue)) as Issue

/** The error of a class of this process: `InputError`, `InternVLError`, `RangeError` or `Error`. */
export const fromSentError = ({ name, message, issues }: SentError): Error => {
  const list = issues as Issues | undefined
  if (list) return name === 'InputError' ? new InputError(list) : new InternVLError(list)
  return name === 'RangeError' ? new RangeError(message) : Object.assign(new Error(message), { name })
}
