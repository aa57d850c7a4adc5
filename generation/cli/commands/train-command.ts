import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import type { EngineName } from '../../../lib/engines/index.js'
import { InternVLError, type Issue, issue, orThrow } from '../../../lib/error.js'
import { type HubFlags, interruption, loadWithProgress, repeated, say, withEngineOption, withHubOptions } from '../common.js'

interface TrainFlags extends HubFlags {
  readonly set?: readonly string[]
  readonly init?: true
  readonly resume?: true
  readonly skipBad?: true
  readonly engine?: EngineName
}

const defaultFile = 'train.json'

const writeExample = async (file: string): Promise<void> => {
  const { exampleConfig } = await import('../../train/train-config.js')
  try {
    await writeFile(file, exampleConfig(), { flag: 'wx' })
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'EEXIST' ? 'it is there already' : (error as Error).message
    throw new InternVLError([issue('WriteFailed', `${file}: it is not written (${why})`, { file })])
  }
  say(`wrote ${file}; set data and output in it, then: internvl train ${file}`)
}

/** Tells of rows that are left out, of each once though epochs come back to it; and in the end how many there were. */
const skipping = () => {
  const told = new Set<string>()
  const rows = new Set<unknown>()
  const onSkipped = (issues: readonly Issue[]): void => {
    for (const { message, where } of issues) {
      if (!told.has(message)) say(`left out: ${message}`)
      told.add(message)
      rows.add(where ?? message)
    }
  }
  const count = () => (rows.size === 1 ? '1 row was left out' : `${rows.size} rows were left out`)
  return { onSkipped, total: () => rows.size > 0 && say(count()) }
}

/** A bar while samples are measured, when it takes a person's time. */
const measuring = () => {
  const bar = new SingleBar({ format: 'measuring samples [{bar}] {value}/{total}', stream: process.stderr, hideCursor: true })
  let begun: number | undefined
  return (done: number, total: number): void => {
    begun ??= performance.now()
    if (!bar.isActive && performance.now() - begun > 500 && done < total) bar.start(total, done)
    bar.update(done)
    if (done === total) bar.stop()
  }
}

const train = async (given: string | undefined, { set, init, resume, skipBad, ...flags }: TrainFlags): Promise<void> => {
  const file = given ?? defaultFile
  if (init) return writeExample(file)
  const { readTrainConfig } = await import('../../train/train-config.js')
  const config = await orThrow(readTrainConfig(file, set))
  const internvl = await loadWithProgress({ ...flags, ...(config.model === null ? {} : { model: config.model }) })
  const { fineTune } = await import('../../train/fine-tune.js')
  const { jsonLines, lossPlot, progress } = await import('../../train/train-log.js')
  const { tensorBoard } = await import('../../train/tensorboard.js')
  const lines = join(config.output, 'train.jsonl')
  const signal = interruption()
  const skipped = skipping()
  let steps = 0
  const isFinished = await fineTune(internvl, config, {
    checkpoints: join(config.output, 'checkpoints'),
    ...{
      signal,
      onSkipped: skipped.onSkipped,
      onMeasure: measuring(),
      onRemark: say,
      resume: resume ?? false,
      skipBad: skipBad ?? false
    },
    onPlan: (planned) => {
      steps = planned
    },
    listeners: [
      progress({ steps: () => steps, every: config['log.every'] }),
      jsonLines(lines),
      ...(config['log.tensorboard'] ? [tensorBoard(join(config.output, 'tensorboard'))] : []),
      lossPlot(lines, join(config.output, 'loss.png'))
    ]
  }).finally(skipped.total)
  if (isFinished) say(`saved ${config.output}`)
  else
    say(
      `stopped; --resume goes on in ${config.output}, and \`internvl merge ${config.output} <target>\` makes a model of it as it is`
    )
  internvl.dispose()
}

/** `internvl train`: fine-tuning by a file of settings. */
export const trainCommand = (): Command =>
  withHubOptions(withEngineOption(new Command('train')))
    .description('fine-tune a model by a file of settings: all weights or some, or LoRA, on answers or on preferences')
    .argument('[config]', `the settings, JSON with comments; ${defaultFile} by default`)
    .option('--init', 'write an example with every setting, its default and what it is for')
    .option('--set <key=value>', 'a setting that has the last word, such as optimizer.rate=2e-5; may be repeated', repeated)
    .option('--resume', 'go on from the last checkpoint')
    .option('--skip-bad', 'leave out rows that are wrong, and count them')
    .action(train)
