import { join } from 'node:path'
import { Command, Option } from 'commander'
import type { EngineName } from '../../../../lib/engines/index.js'
import { interruptSignal, loadWithProgress, positiveInteger, withEngineOption } from '../../common.js'

interface DemoTrainFlags {
  readonly steps?: number
  readonly seed?: number
  readonly saveSteps?: number
  readonly evaluateSteps?: number
  /** Names of the two options before 0.2. */
  readonly saveEvery?: number
  readonly evaluateEvery?: number
  readonly resume?: true
  readonly from?: string
  readonly engine?: EngineName
}

const demoTrain = async (folder: string, { engine, saveEvery, evaluateEvery, from, ...flags }: DemoTrainFlags): Promise<void> => {
  const internvl = await loadWithProgress({ ...(engine ? { engine } : {}) })
  const { demoSteps, trainDemo } = await import('../../../demo/train-demo.js')
  const { progressCallback } = await import('../../../train/logging/progress-bar.js')
  const { jsonlLogger } = await import('../../../train/logging/train-log.js')
  const { save } = await import('../../../checkpoint/save.js')
  const { steps = demoSteps } = flags
  const progress = progressCallback({ steps: () => steps })
  const signal = interruptSignal(progress.print)
  const started = from === undefined ? undefined : await loadWithProgress({ model: from })
  const params = await trainDemo(internvl, {
    ...(started ? { initial: started.params } : {}),
    ...{ saveSteps: saveEvery ?? 250, evaluateSteps: evaluateEvery ?? 1000, ...flags, steps, signal },
    checkpoints: join(folder, 'checkpoints'),
    callbacks: [progress, jsonlLogger(join(folder, 'train.jsonl'))]
  })
  if (signal.aborted) return progress.print(`stopped; add --resume to continue in ${folder}`)
  await save(folder, { config: internvl.config, params, dtype: 'bfloat16', processorFilesFrom: internvl.dir })
  progress.print(`saved ${folder}`)
}

/** `internvl demo-train`: trains the demo model from random weights. */
export const demoTrainCommand = (): Command =>
  withEngineOption(new Command('demo-train'))
    .description('train a model with the architecture of the demo model from random weights on rendered scenes')
    .argument('<folder>', 'output folder of the model, the checkpoints and train.jsonl')
    .option('--steps <n>', 'number of steps of 24 scenes; default: 14000', positiveInteger)
    .option('--seed <n>', 'random seed; default: 1', positiveInteger)
    .option('--save-steps <n>', 'steps between two checkpoints; default: 250', positiveInteger)
    .option('--evaluate-steps <n>', 'steps between two evaluations on validation scenes; default: 1000', positiveInteger)
    .addOption(new Option('--save-every <n>', 'alias of --save-steps').argParser(positiveInteger).hideHelp())
    .addOption(new Option('--evaluate-every <n>', 'alias of --evaluate-steps').argParser(positiveInteger).hideHelp())
    .option('--from <folder>', 'start from the weights of a folder instead of random ones, with the later tasks')
    .option('--resume', 'resume from the last checkpoint')
    .action(demoTrain)
