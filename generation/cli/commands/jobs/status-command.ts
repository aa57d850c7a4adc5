import { Command } from 'commander'
import type { RunStatus } from '../../../jobs/queue/run-status.js'
import { durationText } from '../../row-progress.js'
import { type QueueFlags, withQueue, withQueueOptions } from './jobs-flags.js'

interface StatusFlags extends QueueFlags {
  readonly json?: true
  readonly dead?: true
}

/** Renders the state of a run, one fact a line. */
const renderStatus = (status: RunStatus): string => {
  const { name, file, rows, submitted, answered, errors, retried, jobs, workers, secondsLeft, rowsPerSecond } = status
  const state = status.isCancelled ? 'cancelled' : status.isComplete ? 'complete' : 'open'
  const left = status.isComplete || secondsLeft === undefined ? '' : `, ${durationText(secondsLeft)} left`
  return [
    `run ${name}: ${state}, ${file}`,
    `  rows      ${answered} of ${rows} answered, ${errors} with errors${retried > 0 ? `, ${retried} of them in the queue again` : ''}`,
    `  queue     ${submitted} rows submitted; jobs: ${jobs.waiting} waiting, ${jobs.active} active, ${jobs.delayed} delayed, ${jobs.failed} failed`,
    `  workers   ${workers.length}, ${rowsPerSecond.toFixed(2)} rows/s${left}`,
    ...workers.map(({ worker, rows: done, rowsPerSecond: rate }) => `    ${worker}: ${done} rows, ${rate.toFixed(2)} rows/s`),
    ...(status.model === undefined ? [] : [`  model     content ${status.model}`]),
    ...status.failures.map((reason) => `  failed    ${reason}`)
  ].join('\n')
}

const print = (flags: StatusFlags): Promise<void> =>
  withQueue(flags, async (connection) => {
    const { findRun, runNames } = await import('../../../jobs/queue/run-info.js')
    const { deadRows, runStatus } = await import('../../../jobs/queue/run-status.js')
    const { store } = connection
    const names = flags.name === undefined && !flags.dead ? await runNames(store) : [flags.name]
    if (names.length === 0) await findRun(connection, undefined) // says that there are none
    const statuses: RunStatus[] = []
    for (const name of names) {
      const run = await findRun(connection, name)
      if (flags.dead) for await (const letter of deadRows(store, run)) process.stdout.write(`${JSON.stringify(letter)}\n`)
      else statuses.push(await runStatus(connection, run))
    }
    if (flags.dead) return
    console.log(flags.json ? JSON.stringify(statuses, null, 2) : statuses.map(renderStatus).join('\n'))
  })

/** `internvl jobs status`. */
export const statusCommand = (): Command =>
  withQueueOptions(new Command('status'), 'name of the run; default: all runs')
    .description('print rows, jobs and workers of the runs of a queue')
    .option('--json', 'print the state as JSON')
    .option('--dead', 'print the dead letters, the rows with errors, as jsonl')
    .action(print)
