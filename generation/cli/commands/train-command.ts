import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import type { EngineName } from '../../../lib/engines/index.js'
import { getOrThrow, InternVLError, type Issue, issue, orThrow } from '../../../lib/error.js'
import type { SharedSizes } from '../../train/parallel/fine-tune-together.js'
import { workerShare } from '../../train/parallel/worker-share.js'
import type { TrainConfig } from '../../train/train-config.js'
import {
  appendValue,
  type HubFlags,
  info,
  interruptSignal,
  loadWithProgress,
  partsOption,
  withEngineOption,
  withHubOptions
} from '../common.js'
import { joinFromFlags, type WorkerFlags, withWorkerOptions, workerMember } from '../flags/worker-flags.js'
import { runLocalWorkers } from '../local-workers.js'

interface TrainFlags extends HubFlags, WorkerFlags {
  readonly parts?: string
  readonly set?: readonly string[]
  readonly init?: true
  readonly resume?: true
  readonly skipBad?: true
  readonly engine?: EngineName
}

type Print = (line: string) => void

const defaultFile = 'train.json'

const writeExample = async (file: string): Promise<void> => {
  const { exampleConfig } = await import('../../train/train-config.js')
  try {
    await writeFile(file, exampleConfig(), { flag: 'wx' })
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === 'EEXIST' ? 'the file exists already' : (error as Error).message
    throw new InternVLError([issue('WriteFailed', `${file}: cannot be written (${reason})`, { file })])
  }
  info(`wrote ${file}; set data and output, then run: internvl train ${file}`)
}

/** Prints the error of each skipped row once, although every epoch skips the row again, and at the end the number of skipped rows. */
const skippedRows = (print: Print) => {
  const printed = new Set<string>()
  const rows = new Set<unknown>()
  const onSkipped = (issues: readonly Issue[]): void => {
    for (const { message, where } of issues) {
      if (!printed.has(message)) print(`skipped: ${message}`)
      printed.add(message)
      rows.add(where ?? message)
    }
  }
  const count = () => (rows.size === 1 ? '1 row was skipped' : `${rows.size} rows were skipped`)
  return { onSkipped, printTotal: () => rows.size > 0 && print(count()) }
}

/** A bar while sample sizes are computed; shown if this takes longer than 0.5 s. */
const sizeProgress = () => {
  const bar = new SingleBar({ format: 'sample sizes [{bar}] {value}/{total}', stream: process.stderr, hideCursor: true })
  let startTime: number | undefined
  return (done: number, total: number): void => {
    startTime ??= performance.now()
    if (!bar.isActive && performance.now() - startTime > 500 && done < total) bar.start(total, done)
    bar.update(done)
    if (done === total) bar.stop()
  }
}

/** Callbacks and progress of a run: a bar, `train.jsonl`, TensorBoard and `loss.png`. */
const callbacksOf = async (config: TrainConfig) => {
  const { progressCallback } = await import('../../train/logging/progress-bar.js')
  const { jsonlLogger, lossPlotter } = await import('../../train/logging/train-log.js')
  const { tensorBoardLogger } = await import('../../train/logging/tensorboard.js')
  const logFile = join(config.output, 'train.jsonl')
  let totalSteps = 0
  const progress = progressCallback({ steps: () => totalSteps, logSteps: config['log.steps'] })
  return {
    progress,
    onTotalSteps: (steps: number) => {
      totalSteps = steps
    },
    callbacks: [
      progress,
      jsonlLogger(logFile),
      ...(config['log.tensorboard'] ? [tensorBoardLogger(join(config.output, 'tensorboard'))] : []),
      lossPlotter(logFile, join(config.output, 'loss.png'))
    ]
  }
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`

/** `2 workers: each step sums 1.2 MB of gradients (1 bucket); optimizer state by worker: 1.2 MB, 1.2 MB`. */
const describeSizes = ({ workers, gradients, buckets, optimizer }: SharedSizes): string => {
  const state = optimizer.map(megabytes).join(', ')
  const count = `${buckets} bucket${buckets === 1 ? '' : 's'}`
  return `${workers} workers: each step sums ${megabytes(gradients)} of gradients (${count}); optimizer state by worker: ${state}`
}

/** Throws an `InternVLError` where workers cannot share the samples of a step evenly, before a model is loaded. */
const expectEvenShare = (workers: number, config: TrainConfig): unknown =>
  getOrThrow(
    workerShare(0, workers, { batchSize: config['batch.size'], gradientAccumulation: config['batch.gradientAccumulation'] })
  )

const train = async (given: string | undefined, { set, init, resume, skipBad, ...flags }: TrainFlags): Promise<void> => {
  const file = given ?? defaultFile
  if (init) return writeExample(file)
  const { readTrainConfig } = await import('../../train/train-config.js')
  const config = await orThrow(readTrainConfig(file, set))
  const member = getOrThrow(workerMember(flags))
  const count = member?.addresses.length ?? flags.localWorkers
  if (count !== undefined) expectEvenShare(count, config)
  if (flags.localWorkers !== undefined) {
    process.exitCode = await runLocalWorkers(flags.localWorkers)
    return
  }
  const parallel = member && (await joinFromFlags(member, flags, flags.engine))
  const isFirst = parallel === undefined || parallel.group.rank === 0
  const loading = loadWithProgress({ ...flags, ...(config.model === null ? {} : { model: config.model }) })
  const internvl = await loading.catch(async (error: unknown) => {
    const { reportFailure } = await import('../../train/parallel/fine-tune-together.js')
    if (parallel) reportFailure(parallel.group, error)
    throw error
  })
  const { fineTune } = await import('../../train/fine-tune.js')
  const { progress, ...hooks } = await callbacksOf(config)
  const skipped = skippedRows(progress.print)
  const isFinished = await fineTune(internvl, config, {
    ...hooks,
    checkpoints: join(config.output, 'checkpoints'),
    signal: interruptSignal(progress.print),
    onSkipped: skipped.onSkipped,
    ...(isFirst ? { onSizeProgress: sizeProgress() } : {}),
    onWarning: progress.print,
    ...(parallel ? { parallel, onParallel: (sizes) => progress.print(describeSizes(sizes)) } : {}),
    resume: resume ?? false,
    skipBad: skipBad ?? false
  }).finally(skipped.printTotal)
  const { output } = config
  const stopped = `stopped; --resume continues in ${output}, and \`internvl merge ${output} <target>\` merges the last checkpoint`
  if (isFirst) progress.print(isFinished ? `saved ${output}` : stopped)
  internvl.dispose()
}

/** `internvl train`: fine-tunes a model as described by a file of settings. */
export const trainCommand = (): Command =>
  withWorkerOptions(withHubOptions(withEngineOption(new Command('train'))))
    .description('fine-tune a model as described by a file of settings: full, partial or LoRA, with SFT, DPO or MPO')
    .argument('[config]', `file of settings, JSON with comments; default: ${defaultFile}`)
    .option('--init', 'write an example file with every setting, its default and its description')
    .option('--set <key=value>', 'override a setting, such as optimizer.learningRate=2e-5; may be repeated', appendValue)
    .addOption(partsOption())
    .option('--resume', 'resume from the last checkpoint')
    .option('--skip-bad', 'skip invalid rows, and count them')
    .action(train)
