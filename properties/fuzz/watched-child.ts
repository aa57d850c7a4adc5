import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Request } from './fuzz-child.js'
import type { Verdict } from './verdict.js'

/** Limits of one input. */
export interface Limits {
  /** Processor time of the child in seconds, which a busy machine does not change. Only Linux reports the time. */
  readonly cpuSeconds: number
  /** Wall-clock time in seconds, for calls that wait for ever. */
  readonly wallSeconds: number
  /** Growth of resident memory in MiB. Only Linux reports the memory of another process. */
  readonly megabytes: number
}

export const defaultLimits: Limits = { cpuSeconds: 20, wallSeconds: 120, megabytes: 1500 }

/** A child process that runs one input after the other, and starts again after its end. */
export interface WatchedChild {
  readonly run: (request: Request) => Promise<Verdict>
  readonly close: () => Promise<void>
}

const childFile = fileURLToPath(new URL('fuzz-child.ts', import.meta.url))
const repository = fileURLToPath(new URL('../..', import.meta.url))
const ticksPerSecond = 100 // USER_HZ of Linux on all architectures of Node.js

interface Usage {
  readonly cpuSeconds: number
  readonly megabytes: number
}

/** Processor time and resident memory of a process so far; `undefined` where the system does not tell. */
const usageOf = (pid: number): Usage | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const kilobytes = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
    return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond, megabytes: kilobytes / 1024 }
  } catch {
    return undefined
  }
}

interface Running {
  readonly child: ChildProcess
  /** The last part of standard error. */
  readonly tail: () => string
  /** Reason for which the child was killed, if it was. */
  readonly ended: Promise<string>
}

const start = async (): Promise<Running> => {
  const child = fork(childFile, {
    cwd: repository,
    execArgv: ['--import', 'tsx', '--max-old-space-size=2048'],
    env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3' },
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'pipe', 'ipc']
  })
  let errors = ''
  child.stderr?.on('data', (data) => {
    errors = `${errors}${data}`.slice(-6000)
  })
  const tail = () => errors.trim()
  const ended = once(child, 'exit').then(([code, signal]) => String(signal ?? `exit code ${code}`))
  const first = await Promise.race([once(child, 'message').then(() => 'ready'), ended])
  if (first !== 'ready') throw new Error(`the child process ended at its start (${first})\n${tail()}`)
  return { child, tail, ended }
}

/** A child process with limits; the first input starts the process. */
export const watchedChild = (limits: Limits = defaultLimits): WatchedChild => {
  let running: Running | undefined

  const stop = async (): Promise<void> => {
    const { child, ended } = running ?? {}
    running = undefined
    child?.kill('SIGKILL')
    await ended
  }

  /** Resolves when the child exceeds a limit. */
  const watch = (child: ChildProcess, signal: AbortSignal): Promise<Verdict> =>
    new Promise((resolve) => {
      const [before, startTime] = [usageOf(child.pid!), performance.now()]
      const timer = setInterval(() => {
        const now = before && usageOf(child.pid!)
        const seconds = (performance.now() - startTime) / 1000
        const cpu = now ? now.cpuSeconds - before.cpuSeconds : 0
        const megabytes = now ? now.megabytes - before.megabytes : 0
        if (cpu > limits.cpuSeconds)
          resolve({ outcome: 'hang', detail: `no answer after ${limits.cpuSeconds} s of processor time` })
        else if (seconds > limits.wallSeconds) resolve({ outcome: 'hang', detail: `no answer after ${limits.wallSeconds} s` })
        else if (megabytes > limits.megabytes) resolve({ outcome: 'memory', detail: `more than ${limits.megabytes} MiB` })
      }, 100)
      signal.addEventListener('abort', () => clearInterval(timer))
    })

  const run = async (request: Request): Promise<Verdict> => {
    running ??= await start()
    const { child, tail, ended } = running
    const done = new AbortController()
    const answer = once(child, 'message', { signal: done.signal }).then(([verdict]) => verdict as Verdict)
    answer.catch(() => undefined) // aborted where the child ended first
    const death = ended.then(
      (how): Verdict => ({ outcome: 'crash', detail: `the process ended with ${how}\n${tail().slice(-1500)}` })
    )
    const watched = watch(child, done.signal)
    child.send(request)
    const verdict = await Promise.race([answer, death, watched])
    done.abort()
    if (verdict.outcome === 'crash' || verdict.outcome === 'hang' || verdict.outcome === 'memory') await stop()
    return verdict
  }

  return {
    run,
    close: async () => {
      if (!running) return
      const { child, ended } = running
      running = undefined
      child.disconnect()
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000)
      await ended
      clearTimeout(timer)
    }
  }
}
