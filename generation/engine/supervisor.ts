import { EngineFailedError } from './engine-errors.js'
import type { EngineInfo } from './engine-types.js'
import { type ModelProcess, type ProcessListeners, startProcess } from './model-process.js'
import { type FromProcess, fromSentError, type ToProcess } from './protocol.js'

/** Keeps one process of the model running. */
export interface Supervisor {
  readonly state: () => 'starting' | 'ready' | 'failed' | 'ended'
  /** Sends to the process, if it is ready. */
  readonly send: (message: ToProcess) => void
  readonly pid: () => number | undefined
  readonly restarts: () => number
  /** The process has worked: failures before do not count any more. */
  readonly onSuccess: () => void
  readonly end: (force?: boolean) => Promise<void>
}

export interface SupervisorOptions {
  readonly load: Extract<ToProcess, { readonly type: 'load' }>
  readonly maxRestarts: number
  /** Milliseconds before the first new start, doubled after each up to 30 s. */
  readonly restartBackoff: number
  readonly onReady: (info: EngineInfo) => void
  /** The process ended, or could not load the model again; another start follows. */
  readonly onCrash: (reason: string) => void
  /** No other start follows. An error of the first load is the error of `load`. */
  readonly onFailed: (error: Error) => void
  readonly onMessage: (message: Exclude<FromProcess, { readonly type: 'ready' | 'load-failed' }>) => void
  /** Starts a process; another one in tests. */
  readonly start?: (listeners: ProcessListeners) => ModelProcess
}

const MAX_BACKOFF = 30_000

/** Starts the process, and starts it again after a crash. A first load that fails is not tried again. */
export const supervise = (options: SupervisorOptions): Supervisor => {
  const { load, maxRestarts, restartBackoff, onReady, onCrash, onFailed, onMessage, start = startProcess } = options
  let state: ReturnType<Supervisor['state']> = 'starting'
  let current: ModelProcess | undefined
  let timer: NodeJS.Timeout | undefined
  let [wasReady, restarts, failures] = [false, 0, 0]

  const fail = (error: Error): void => {
    state = 'failed'
    onFailed(error)
  }
  const onEnd = (reason: string): void => {
    current = undefined
    if (state === 'ended' || state === 'failed') return
    if (wasReady) {
      state = 'starting'
      onCrash(reason)
    }
    failures++
    if (!wasReady || failures > maxRestarts) fail(new EngineFailedError(failures, reason))
    else
      timer = setTimeout(
        () => {
          restarts++
          begin()
        },
        Math.min(MAX_BACKOFF, restartBackoff * 2 ** (failures - 1))
      )
  }
  const begin = (): void => {
    const process = start({
      onEnd: (reason) => {
        if (current === process) onEnd(reason)
      },
      onMessage: (message) => {
        if (current !== process) return // a message that was on its way when the process was given up
        if (message.type === 'ready') {
          state = 'ready'
          wasReady = true
          onReady(message.info)
        } else if (message.type === 'load-failed') {
          current = undefined
          void process.end(true)
          if (wasReady) onEnd(`the model could not be loaded again: ${message.error.message}`)
          else fail(fromSentError(message.error))
        } else onMessage(message)
      }
    })
    current = process
    process.send(load)
  }
  begin()
  return {
    state: () => state,
    send: (message) => {
      if (state === 'ready') current?.send(message)
    },
    pid: () => current?.pid,
    restarts: () => restarts,
    onSuccess: () => {
      failures = 0
    },
    end: async (force) => {
      if (state !== 'failed') state = 'ended'
      clearTimeout(timer)
      await current?.end(force)
    }
  }
}
