import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { freePorts } from '../../../lib/distributed/worker-addresses.js'

/** One process of a test with several workers. */
export interface WorkerProcess {
  readonly kill: (signal?: NodeJS.Signals) => void
  /** Resolves with the first JSON line of standard output that has the key. */
  readonly line: (key: string) => Promise<Record<string, unknown>>
  /** Resolves with `count` once this number of JSON lines have the key. Rejects where the process ends before. */
  readonly count: (key: string, count: number) => Promise<number>
  /** All JSON lines of standard output, the exit code and standard error, once the process has ended. */
  readonly ended: Promise<{
    readonly lines: readonly Record<string, unknown>[]
    readonly code: number | null
    readonly errors: string
  }>
}

/** Starts `count` processes of a script: `node script <rank> <addresses> …args`. */
export const startWorkers = async (
  script: string,
  count: number,
  args: readonly string[] = []
): Promise<readonly WorkerProcess[]> => {
  const addresses = (await freePorts(count)).map((port) => `127.0.0.1:${port}`).join(',')
  return Array.from({ length: count }, (_, rank) => startProcess([script, String(rank), addresses, ...args]))
}

/** Starts one TypeScript process that prints JSON lines. */
export const startProcess = (args: readonly string[], env: NodeJS.ProcessEnv = {}): WorkerProcess => {
  const child = spawn(process.execPath, ['--import', 'tsx', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, TF_NUM_INTRAOP_THREADS: '1', OMP_NUM_THREADS: '1', ...env }
  })
  const lines: Record<string, unknown>[] = []
  const waiting: (() => void)[] = []
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  createInterface(child.stdout).on('line', (line) => {
    if (line.startsWith('{')) lines.push(JSON.parse(line))
    for (const wake of waiting.splice(0)) wake()
  })
  const ended = new Promise<Awaited<WorkerProcess['ended']>>((done) =>
    child.once('close', (code) => done({ lines, code, errors }))
  )
  const count = async (key: string, wanted: number): Promise<number> => {
    while (lines.filter((one) => key in one).length < wanted) {
      const isOver = await Promise.race([new Promise<false>((wake) => waiting.push(() => wake(false))), ended.then(() => true)])
      if (isOver && lines.filter((one) => key in one).length < wanted)
        throw new Error(`the process ended without ${key}: ${errors}`)
    }
    return wanted
  }
  const line = async (key: string): Promise<Record<string, unknown>> => {
    await count(key, 1)
    return lines.find((one) => key in one)!
  }
  return { kill: (signal = 'SIGKILL') => child.kill(signal), line, count, ended }
}
