import { Command } from 'commander'
import { info, positiveInteger, stopSignal, withModelOptions } from '../../common.js'
import { type RowFlags, rowOptions, withRowOptions } from '../../flags/row-flags.js'
import { type QueueFlags, withQueue, withQueueOptions } from './jobs-flags.js'

interface SubmitFlags extends QueueFlags, RowFlags {
  readonly chunk: number
  readonly maxWaiting: number
}

const submit = (file: string, flags: SubmitFlags): Promise<void> =>
  withQueue(flags, async (connection) => {
    const { submitRun } = await import('../../../jobs/queue/submit-run.js')
    const { name = 'internvl', chunk, maxWaiting } = flags
    const stop = stopSignal('stopping after this job; the same command continues')
    const onProgress = (submitted: number, total: number, isFull: boolean): void => {
      if (isFull) info(`${submitted} of ${total} rows are in the queue; ${maxWaiting} jobs wait for workers`)
    }
    const { rows, submitted } = await submitRun(connection, file, {
      ...rowOptions(flags),
      name,
      chunk,
      maxWaiting,
      stop,
      onProgress
    })
    info(`run ${name}: ${submitted} of ${rows} rows are in the queue`)
    if (submitted < rows) process.exitCode = 1
  })

/** Options of generation that belong to the rows; those of loading belong to workers. */
const withMaxNewTokens = (command: Command): Command => {
  const names = ['--max-new-tokens', '--visual-delta', '--max-patches']
  const options = withModelOptions(new Command()).options.filter(({ long }) => names.includes(long ?? ''))
  for (const option of options) command.addOption(option)
  return command
}

/** `internvl jobs submit`. */
export const submitCommand = (): Command =>
  withRowOptions(withMaxNewTokens(withQueueOptions(new Command('submit'), 'name of the run; default: internvl')))
    .description('put the rows of a file into a queue; the same command continues an interrupted submission')
    .argument('<file>', 'jsonl, JSON array, Parquet, CSV or TSV, or a batch file of OpenAI')
    .option('--chunk <n>', 'rows of a job', positiveInteger, 32)
    .option(
      '--max-waiting <n>',
      'jobs that may wait in the queue; submission goes on when workers have taken some',
      positiveInteger,
      10_000
    )
    .action(submit)
