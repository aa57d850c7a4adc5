import { type Command, Option } from 'commander'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { parseRank, parseWorkers } from '../../../lib/distributed/worker-addresses.js'
import { type Issues, invalid, orThrow } from '../../../lib/error.js'
import type { Parallel } from '../../train/parallel/data-parallel.js'
import { info, positiveInteger } from '../common.js'

/** Options of training on several workers. */
export interface WorkerFlags {
  readonly workers?: string
  readonly rank?: string
  readonly localWorkers?: number
  readonly zero?: '0' | '1'
  readonly trustNetwork?: true
}

const workerHelp = `
Several workers: start the same command on every machine, each with its --rank; INTERNVL_WORKERS and INTERNVL_RANK stand for the two options.
Worker 0 writes the checkpoints, the logs and the result. The machines need the same model, data and versions, and a private network: the
connections have neither encryption nor passwords. --local-workers starts all workers on this machine.`

/** Adds the options of `WorkerFlags`. */
export const withWorkerOptions = (command: Command): Command =>
  command
    .option(
      '--workers <list>',
      'train with several workers: host:port of each, separated by commas, the same list on every machine'
    )
    .option('--rank <n>', 'index of this worker in --workers, from 0')
    .option('--local-workers <n>', 'start this number of workers on this machine', positiveInteger)
    .addOption(
      new Option('--zero <stage>', 'with workers, 1 shares the state of the optimizer out among them; default: 0').choices([
        '0',
        '1'
      ])
    )
    .option('--trust-network', 'with workers, allow addresses that the internet may reach')
    .addHelpText('after', workerHelp)

/** The position of this process among the workers of a run. */
export interface WorkerMember {
  readonly addresses: readonly string[]
  readonly rank: number
}

/** The position that options or environment name; undefined for a run of this process alone. Errors: one without the other; wrong values. */
export const workerMember = (
  { workers, rank, localWorkers }: WorkerFlags,
  env: NodeJS.ProcessEnv = process.env
): E.Either<Issues, WorkerMember | undefined> => {
  const [list, index] = [workers ?? env.INTERNVL_WORKERS, rank ?? env.INTERNVL_RANK]
  if (localWorkers !== undefined && (list ?? index) !== undefined)
    return invalid('WorkerFlags', '--local-workers starts all workers by itself; leave out --workers and --rank')
  if (list === undefined && index === undefined) return E.right(undefined)
  if (list === undefined) return invalid('WorkerFlags', '--rank: needs --workers, the addresses of all workers')
  if (index === undefined) return invalid('WorkerFlags', '--workers: needs --rank, the index of this worker in the list, from 0')
  return pipe(
    parseWorkers(list),
    E.chain((addresses) =>
      pipe(
        parseRank(index, addresses.length),
        E.map((parsed) => ({ addresses, rank: parsed }))
      )
    )
  )
}

/** Joins the workers that the options name, and reports the waiting on standard error. */
export const joinFromFlags = async (
  { addresses, rank }: WorkerMember,
  flags: WorkerFlags,
  engine?: string
): Promise<Parallel> => {
  const { joinWorkers } = await import('../../../lib/distributed/join-workers.js')
  const onWaiting = (missing: readonly string[]) => {
    if (missing.length > 0) info(`worker ${rank}: waiting for ${missing.join(', ')}`)
  }
  const trustNetwork = flags.trustNetwork ?? false
  const env = engine === undefined ? process.env : { ...process.env, INTERNVL_ENGINE: engine }
  const group = await orThrow(joinWorkers({ addresses, rank, trustNetwork, onWaiting, env }))
  process.on('SIGTERM', () => process.exit(143)) // TensorFlow's servers ignore the signal
  return { group, zero: flags.zero === '1' ? 1 : 0 }
}
