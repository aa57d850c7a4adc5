import { fork } from 'node:child_process'
import { startable } from '../../lib/threads/start-thread.js'
import type { FromProcess, ToProcess } from './protocol.js'

/** A process of the model. */
export interface ModelProcess {
  readonly pid: number | undefined
  /** Does nothing after the end of the process. */
  readonly send: (message: ToProcess) => void
  /** Ends the process: at once with `force`, else after the piece of work that it does. Resolves at its end. */
  readonly end: (force?: boolean) => Promise<void>
}

export interface ProcessListeners {
  readonly onMessage: (message: FromProcess) => void
  /** Called once, with the reason in a few words, whether or not `end` was called. */
  readonly onEnd: (reason: string) => void
}

/** Milliseconds after which a process that was asked to end is killed. */
const END_TIMEOUT = 10_000

/** Starts the process. Its output goes to this process's standard error. */
export const startProcess = ({ onMessage, onEnd }: ProcessListeners): ModelProcess => {
  const { file, argv } = startable(new URL('./process/engine-process', import.meta.url))
  const child = fork(file, argv, { serialization: 'advanced', stdio: ['ignore', 2, 2, 'ipc'], execArgv: [] })
  let isEnded = false
  const ended = new Promise<void>((resolve) => {
    const end = (reason: string): void => {
      if (isEnded) return
      isEnded = true
      onEnd(reason)
      resolve()
    }
    child.on('exit', (code, signal) => end(signal ? `signal ${signal}` : `exit code ${code}`))
    child.on('error', (error) => end(error.message))
  })
  child.on('message', (message) => onMessage(message as FromProcess))
  return {
    pid: child.pid,
    send: (message) => {
      if (!isEnded && child.connected) child.send(message, () => undefined) // a failed write is followed by the end of the process
    },
    end: async (force = false) => {
      if (isEnded) return
      if (force) child.kill('SIGKILL')
      else if (child.connected) child.disconnect()
      const timer = setTimeout(() => child.kill('SIGKILL'), END_TIMEOUT)
      await ended
      clearTimeout(timer)
    }
  }
}
