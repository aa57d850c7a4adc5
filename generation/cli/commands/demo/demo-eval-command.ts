import { Command, Option } from 'commander'
import { engineNames } from '../../../../lib/engines/engine.js'
import type { EngineName } from '../../../../lib/engines/index.js'
import { orThrow } from '../../../../lib/error.js'
import { sceneSample, type Task, taskWeights } from '../../../demo/scenes.js'
import { type DatasetRow, readDataset } from '../../../evaluate/eval-dataset.js'
import { renderSummary } from '../../../evaluate/evaluation-summary.js'
import { info, loadWithProgress, positiveInteger } from '../../common.js'

interface DemoEvalFlags {
  readonly count: number
  readonly seed: number
  readonly maxPatches: number
  readonly task?: Task
  readonly json?: true
  readonly engine?: EngineName
}

const rowsOf = async (file: string | undefined, { seed, count, task }: DemoEvalFlags): Promise<readonly DatasetRow[]> => {
  if (file !== undefined) return orThrow(readDataset(file))
  const weights = task === undefined ? taskWeights : { [task]: 1 }
  return Array.from({ length: count }, (_, i) => sceneSample(seed, i, weights))
}

const demoEval = async (folder: string | undefined, file: string | undefined, flags: DemoEvalFlags): Promise<void> => {
  const rows = await rowsOf(file, flags)
  const internvl = await loadWithProgress({
    ...(folder === undefined ? {} : { model: folder }),
    ...(flags.engine ? { engine: flags.engine } : {})
  })
  const { evaluate } = await import('../../../evaluate/evaluate.js')
  const startTime = performance.now()
  const { summary } = await evaluate(internvl, rows, { batchSize: 24, maxPatches: flags.maxPatches, maxNewTokens: 64 })
  const source = file ?? `${rows.length} scenes of seed ${flags.seed}`
  console.log(flags.json ? JSON.stringify({ source, model: internvl.dir, ...summary }, null, 2) : renderSummary(summary))
  info(`${source}: ${((performance.now() - startTime) / 1000).toFixed(1)} s on ${internvl.engine.name}`)
  internvl.dispose()
}

/** `internvl demo-eval`: accuracy of a model on rendered demo scenes. */
export const demoEvalCommand = (): Command =>
  new Command('demo-eval')
    .description('accuracy of a model by task on rendered demo scenes, or on the rows of a file')
    .argument('[folder]', 'checkpoint folder; default: the demo model of the package')
    .argument('[file]', 'jsonl file of questions, instead of rendered scenes')
    .option('--count <n>', 'number of scenes', positiveInteger, 300)
    .option('--seed <n>', 'seed of the scenes; training uses seed 1, its validation seed 777', positiveInteger, 4242)
    .addOption(new Option('--task <name>', 'scenes of one task only').choices(Object.keys(taskWeights)))
    .option('--max-patches <n>', 'most tiles of an image, besides the thumbnail', positiveInteger, 1)
    .option('--json', 'print the counts as JSON')
    .addOption(
      new Option('--engine <name>', 'engine to compute with; default: the fastest available engine').choices(engineNames)
    )
    .action(demoEval)
