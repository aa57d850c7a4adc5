import { Command, Option } from 'commander'
import { engineNames } from '../../../../lib/engines/engine.js'
import type { EngineName } from '../../../../lib/engines/index.js'
import { orThrow } from '../../../../lib/error.js'
import { sceneSample } from '../../../demo/scenes.js'
import { type DatasetRow, readDataset } from '../../../evaluate/eval-dataset.js'
import { renderSummary } from '../../../evaluate/evaluation-summary.js'
import { info, loadWithProgress, positiveInteger } from '../../common.js'

interface DemoEvalFlags {
  readonly count: number
  readonly seed: number
  readonly json?: true
  readonly engine?: EngineName
}

const rowsOf = async (file: string | undefined, { seed, count }: DemoEvalFlags): Promise<readonly DatasetRow[]> =>
  file === undefined ? Array.from({ length: count }, (_, i) => sceneSample(seed, i)) : orThrow(readDataset(file))

const demoEval = async (folder: string | undefined, file: string | undefined, flags: DemoEvalFlags): Promise<void> => {
  const rows = await rowsOf(file, flags)
  const internvl = await loadWithProgress({
    ...(folder === undefined ? {} : { model: folder }),
    ...(flags.engine ? { engine: flags.engine } : {})
  })
  const { evaluate } = await import('../../../evaluate/evaluate.js')
  const startTime = performance.now()
  const { summary } = await evaluate(internvl, rows, { batchSize: 24, maxPatches: 1, maxNewTokens: 64 })
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
    .option('--json', 'print the counts as JSON')
    .addOption(
      new Option('--engine <name>', 'engine to compute with; default: the fastest available engine').choices(engineNames)
    )
    .action(demoEval)
