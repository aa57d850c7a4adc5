import { join } from 'node:path'
import { Command } from 'commander'
import type { EngineName } from '../../../lib/engines/index.js'
import { interruption, loadWithProgress, say, wholeNumber, withEngineOption } from '../common.js'

interface DemoTrainFlags {
  readonly steps?: number
  readonly seed?: number
  readonly saveEvery?: number
  readonly evaluateEvery?: number
  readonly resume?: true
  readonly engine?: EngineName
}

const demoTrain = async (folder: string, { engine, ...flags }: DemoTrainFlags): Promise<void> => {
  const internvl = await loadWithProgress({ ...(engine ? { engine } : {}) })
  const { demoSteps, trainDemo } = await import('../../demo/train-demo.js')
  const { jsonLines, progress } = await import('../../train/train-log.js')
  const { save } = await import('../../checkpoint/save.js')
  const { steps = demoSteps } = flags
  const signal = interruption()
  const params = await trainDemo(internvl, {
    ...{ ...flags, steps, signal },
    checkpoints: join(folder, 'checkpoints'),
    listeners: [progress({ steps: () => steps }), jsonLines(join(folder, 'train.jsonl'))]
  })
  if (signal.aborted) return say(`stopped; --resume goes on in ${folder}`)
  await save(folder, { config: internvl.config, params, dtype: 'bfloat16', processorFilesFrom: internvl.dir })
  say(`saved ${folder}`)
}

/** `internvl demo-train`: the demo model again, from nothing. */
export const demoTrainCommand = (): Command =>
  withEngineOption(new Command('demo-train'))
    .description('train a model of the demo model’s shape from random weights, on scenes drawn on the way')
    .argument('<folder>', 'where the model, its checkpoints and train.jsonl go')
    .option('--steps <n>', 'steps of 24 scenes; 9938 by default, as many as the one that ships took', wholeNumber)
    .option('--seed <n>', 'another run than the usual one', wholeNumber)
    .option('--save-every <n>', 'steps from one checkpoint to the next', wholeNumber, 250)
    .option('--evaluate-every <n>', 'steps from one evaluation on scenes held out to the next', wholeNumber, 1000)
    .option('--resume', 'go on from the last checkpoint')
    .action(demoTrain)
