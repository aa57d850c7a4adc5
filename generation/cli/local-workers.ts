import { type ChildProcess, spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { createInterface } from 'node:readline'
import { freePorts } from '../../lib/distributed/worker-addresses.js'
import { info } from './common.js'

/** Time for the other workers to end by themselves after one has failed. */
const graceTime = 15000 // ms

/** Command-line arguments without `--local-workers` and its value. */
export const withoutLocalWorkers = (args: readonly string[]): readonly string[] =>
  args.filter((arg, i) => arg !== '--local-workers' && args[i - 1] !== '--local-workers' && !arg.startsWith('--local-workers='))

/** Lines of TensorFlow's C++ log, which repeat in every thread what the error of the worker says. */
const isTensorflowLog = (line: string): boolean => /^([IWEF]\d{4} \d\d:|WARNING: All log messages before absl)/.test(line)

const startWorker = (args: readonly string[], addresses: string, rank: number, threads: string): ChildProcess => {
  const child = spawn(process.execPath, [...process.execArgv, ...args], {
    stdio: ['ignore', rank === 0 ? 'inherit' : 'ignore', 'pipe'],
    env: {
      ...{ TF_NUM_INTRAOP_THREADS: threads, OMP_NUM_THREADS: threads },
      ...process.env,
      ...{ INTERNVL_WORKERS: addresses, INTERNVL_RANK: String(rank) }
    }
  })
  const prefix = rank === 0 ? '' : `worker ${rank}: `
  createInterface(child.stderr!).on('line', (line) => isTensorflowLog(line) || info(`${prefix}${line}`))
  return child
}

/**
 * Runs a command line as `count` workers on this machine, each with an equal share of the cores. The output is that of worker 0; lines of
 * the others on standard error begin with their name. Returns the exit code: 0 where all workers succeeded. After one has failed, the
 * others get 15 s to end.
 */
export const runLocalWorkers = async (count: number, args: readonly string[] = process.argv.slice(1)): Promise<number> => {
  const addresses = (await freePorts(count)).map((port) => `127.0.0.1:${port}`).join(',')
  const threads = String(Math.max(1, Math.floor(availableParallelism() / count)))
  const children = Array.from({ length: count }, (_, rank) => startWorker(withoutLocalWorkers(args), addresses, rank, threads))
  const killAll = (signal: NodeJS.Signals): void => {
    for (const child of children) child.kill(signal)
  }
  const ignore = (): void => {} // a terminal sends Ctrl-C to the workers too, which stop after the step
  const stop = (): void => killAll('SIGTERM')
  process.on('SIGINT', ignore).on('SIGTERM', stop)
  let timer: NodeJS.Timeout | undefined
  const codes = await Promise.all(
    children.map(
      (child, rank) =>
        new Promise<number>((done) =>
          child.once('close', (code, signal) => {
            if (signal) info(`internvl: worker ${rank} was ended by ${signal}`)
            if (code !== 0) timer ??= setTimeout(() => killAll('SIGKILL'), graceTime)
            done(code ?? 1)
          })
        )
    )
  )
  clearTimeout(timer)
  process.off('SIGINT', ignore).off('SIGTERM', stop)
  return Math.max(...codes)
}
