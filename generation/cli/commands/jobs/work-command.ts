import { Command } from 'commander'
import {
  info,
  type ModelFlags,
  portNumber,
  positiveInteger,
  resolveModelFolder,
  stopSignal,
  withLoadOptions
} from '../../common.js'
import { precisionOptions } from '../../flags/precision-flags.js'
import { type QueueFlags, withQueue, withQueueOptions } from './jobs-flags.js'

interface WorkFlags extends QueueFlags, ModelFlags {
  readonly batch: number
  readonly rate?: number
  readonly stallSeconds: number
  readonly untilDone?: true
  readonly dashboard?: number | true
}

const DASHBOARD_PORT = 3100

const work = (flags: WorkFlags): Promise<void> =>
  withQueue(flags, async (connection) => {
    const { name, batch, rate: rowsPerMinute, stallSeconds, untilDone, engine, adapter, parts, imageBackend, dashboard } = flags
    const model = flags.model === undefined ? undefined : await resolveModelFolder(flags.model, flags)
    const { workOnRuns } = await import('../../../jobs/queue/work-on-runs.js')
    const stop = stopSignal('stopping after the rows in progress; their jobs return to the queue')
    const { startDashboard } = await import('../../../jobs/queue/dashboard.js')
    const board =
      dashboard === undefined ? undefined : await startDashboard(connection, dashboard === true ? DASHBOARD_PORT : dashboard)
    if (board) info(`dashboard on ${board.url}`)
    try {
      await workOnRuns(connection, {
        ...{ name, model, batch, rowsPerMinute, stallSeconds, untilDone, stop, onEvent: info },
        engine: {
          ...precisionOptions(flags),
          engine,
          adapter,
          parts,
          imageBackend,
          ...(flags.maxPatches === undefined ? {} : { defaults: { maxPatches: flags.maxPatches } })
        }
      })
    } finally {
      if (board) await board.close()
    }
  })

/** `internvl jobs work`. */
export const workCommand = (): Command =>
  withLoadOptions(withQueueOptions(new Command('work'), 'name of the run to work on; default: all runs, also later ones'))
    .description('answer the jobs of a queue with a model on this machine; SIGTERM ends after the rows in progress')
    .option('--batch <n>', 'rows that are answered together', positiveInteger, 8)
    .option('--rate <n>', 'at most n rows a minute; default: no limit', positiveInteger)
    .option(
      '--stall-seconds <n>',
      'seconds without a sign of life after which the job of a worker is given to another',
      positiveInteger,
      30
    )
    .option('--until-done', 'end when all runs are complete; default: wait for more')
    .option(
      '--dashboard [port]',
      `show the jobs on a page of this machine; default port: ${DASHBOARD_PORT}, 0 takes a free one`,
      portNumber
    )
    .action(work)
