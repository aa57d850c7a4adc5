import { parentPort, workerData } from 'node:worker_threads'
import { orThrow } from '../../../lib/error.js'
import { type LoadProcessorOptions, loadProcessor } from '../../../processors/processor.js'
import type { Tiles } from '../../feature-cache.js'
import { type SentError, toSentError } from '../protocol.js'
import { type PreparedPrompt, type PrepareJobs, prepareJobs } from './prepare-jobs.js'

// Worker thread of `preparerThread`: receives `ToWorker`, sends `FromWorker`. Pixels are transferred, not copied.

/** Data that the thread starts with. */
export interface WorkerInput extends LoadProcessorOptions {
  /** Checkpoint folder of the processor. */
  readonly dir: string
  readonly vocabSize: number
}

export type ToWorker =
  | { readonly id: number; readonly job: keyof PrepareJobs; readonly args: readonly unknown[] }
  | { readonly id: number; readonly abort: true }

export interface FromWorker {
  readonly id: number
  readonly value?: unknown
  readonly error?: SentError
}

const { dir, vocabSize, ...options } = workerData as WorkerInput
const port = parentPort!
const jobs = orThrow(loadProcessor(dir, options)).then((processor) => prepareJobs(processor, vocabSize))
const running = new Map<number, AbortController>()

const buffersOf = (value: unknown): ArrayBuffer[] => {
  const tiles = (value as PreparedPrompt | undefined)?.tiles ?? ((value as Tiles | undefined)?.data ? [value as Tiles] : [])
  return tiles.map(({ data }) => data.buffer as ArrayBuffer)
}

const run = async (id: number, job: keyof PrepareJobs, args: readonly unknown[]): Promise<void> => {
  const controller = new AbortController()
  running.set(id, controller)
  try {
    const work = (await jobs)[job] as (...args: readonly unknown[]) => Promise<unknown>
    const value = await work(...args, controller.signal)
    port.postMessage({ id, value } satisfies FromWorker, buffersOf(value))
  } catch (error) {
    port.postMessage({ id, error: toSentError(error) } satisfies FromWorker)
  } finally {
    running.delete(id)
  }
}

port.on('message', (message: ToWorker) => {
  if ('abort' in message) running.get(message.id)?.abort()
  else void run(message.id, message.job, message.args)
})
