import { setTimeout } from 'node:timers/promises'
import { Command, Option } from 'commander'
import { type AnswerFormat, answerFormats } from '../../../jobs/answers/answer-lines.js'
import { info, stopSignal } from '../../common.js'
import { rowProgress } from '../../row-progress.js'
import { type QueueFlags, withQueue, withQueueOptions } from './jobs-flags.js'

interface CollectFlags extends QueueFlags {
  readonly out: string
  readonly format?: AnswerFormat
  readonly wait?: true
  readonly partial?: true
}

/** Milliseconds between two looks at a run. */
const POLL = 1000

const collect = (flags: CollectFlags): Promise<void> =>
  withQueue(flags, async (connection) => {
    const { collectRun } = await import('../../../jobs/queue/collect-run.js')
    const { findRun } = await import('../../../jobs/queue/run-info.js')
    const { runStatus } = await import('../../../jobs/queue/run-status.js')
    const { out, format, wait, partial } = flags
    if (wait) {
      const [run, progress] = [await findRun(connection, flags.name), rowProgress('collect')]
      const stop = stopSignal('stopping; the run continues')
      let first: number | undefined
      while (!stop.aborted) {
        const { answered, errors, isComplete, isCancelled, rows: total } = await runStatus(connection, run)
        first ??= answered
        progress.update({ done: answered, total, resumed: 0, errors }, first)
        if (isComplete || isCancelled) break
        await setTimeout(POLL, undefined, { signal: stop }).catch(() => undefined)
      }
      progress.stop()
    }
    const { name, rows, answered, errors } = await collectRun(connection, { name: flags.name, out, format, partial })
    info(`run ${name}: ${answered} of ${rows} rows in ${out}, ${errors} with errors`)
    if (errors > 0 || answered < rows) process.exitCode = 1
  })

/** `internvl jobs collect`. */
export const collectCommand = (): Command =>
  withQueueOptions(new Command('collect'))
    .description('write the answers of a run to a file, in the order of rows; the exit code is 1 if a row has an error')
    .requiredOption('-o, --out <file>', 'file of answers: jsonl, .csv or .parquet')
    .addOption(
      new Option('--format <name>', 'format of the answers; default: by the extension of --out').choices([...answerFormats])
    )
    .option('--wait', 'wait until the run is complete')
    .option('--partial', 'write the answers so far')
    .action(collect)

const retry = (flags: QueueFlags): Promise<void> =>
  withQueue(flags, async (connection) => {
    const { retryRun } = await import('../../../jobs/queue/change-run.js')
    const { name, rows, jobs } = await retryRun(connection, flags.name)
    info(`run ${name}: ${rows} rows with errors and ${jobs} failed jobs are in the queue again`)
  })

/** `internvl jobs retry`. */
export const retryCommand = (): Command =>
  withQueueOptions(new Command('retry'))
    .description('put the rows with errors (dead letters) and failed jobs of a run into the queue again')
    .action(retry)

const cancel = (flags: QueueFlags & { readonly remove?: true }): Promise<void> =>
  withQueue(flags, async (connection) => {
    const { cancelRun } = await import('../../../jobs/queue/change-run.js')
    const { remove } = flags
    const { name, rows, answered } = await cancelRun(connection, flags.name, { remove })
    const rest = remove ? 'its answers are deleted' : 'jobs collect --partial has them, jobs submit continues'
    info(`run ${name}: cancelled after ${answered} of ${rows} rows; ${rest}`)
  })

/** `internvl jobs cancel`. */
export const cancelCommand = (): Command =>
  withQueueOptions(new Command('cancel'))
    .description('take the waiting jobs of a run from the queue')
    .option('--remove', 'delete the answers too')
    .action(cancel)
