import { startThread } from '../../../lib/threads/start-thread.js'
import { fromSentError } from '../protocol.js'
import type { PrepareJobs } from './prepare-jobs.js'
import type { FromWorker, ToWorker, WorkerInput } from './prepare-worker.js'

interface PendingJob {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

/**
 * The jobs in a thread of its own, so that resizing a large image stops no decoding step. The end of the thread ends this process,
 * which the engine starts again.
 */
export const preparerThread = (input: WorkerInput): PrepareJobs => {
  const worker = startThread(new URL('./prepare-worker', import.meta.url), input)
  worker.unref()
  const pending = new Map<number, PendingJob>()
  let started = 0
  worker.on('message', ({ id, value, error }: FromWorker) => {
    const job = pending.get(id)
    pending.delete(id)
    if (error) job?.reject(fromSentError(error))
    else job?.resolve(value)
  })
  worker.on('error', (error) => {
    throw error
  })
  const post = (message: ToWorker): void => worker.postMessage(message)
  const run = (job: keyof PrepareJobs, args: readonly unknown[], signal?: AbortSignal): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const id = started++
      const abort = (): void => post({ id, abort: true })
      const settled = (): void => signal?.removeEventListener('abort', abort)
      pending.set(id, {
        resolve: (value) => {
          settled()
          resolve(value)
        },
        reject: (error) => {
          settled()
          reject(error)
        }
      })
      post({ id, job, args })
      if (signal?.aborted) abort()
      signal?.addEventListener('abort', abort)
    })
  return {
    prompt: (prompt, options, signal) => run('prompt', [prompt, options], signal) as ReturnType<PrepareJobs['prompt']>,
    tokenize: (prompt, options) => run('tokenize', [prompt, options]) as ReturnType<PrepareJobs['tokenize']>,
    tiling: (prompt, options) => run('tiling', [prompt, options]) as ReturnType<PrepareJobs['tiling']>,
    image: (source, maxPatches, options) => run('image', [source, maxPatches, options]) as ReturnType<PrepareJobs['image']>
  }
}
