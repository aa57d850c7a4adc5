import { Command, Option } from 'commander'
import { engineNames } from '../../../lib/engines/engine.js'
import type { EngineName } from '../../../lib/engines/index.js'
import { orThrow } from '../../../lib/error.js'
import { sample } from '../../demo/scenes.js'
import { type DatasetRow, readDataset } from '../../evaluate/eval-dataset.js'
import { loadWithProgress, say, wholeNumber } from '../common.js'
import { chunks, render, type Scored, score, split, summarize } from './eval-command.js'

interface DemoEvalFlags {
  readonly count: number
  readonly seed: number
  readonly json?: true
  readonly engine?: EngineName
}

const rowsOf = async (file: string | undefined, { seed, count }: DemoEvalFlags): Promise<readonly DatasetRow[]> =>
  file === undefined ? Array.from({ length: count }, (_, i) => sample(seed, i)) : orThrow(readDataset(file))

const demoEval = async (folder: string | undefined, file: string | undefined, flags: DemoEvalFlags): Promise<void> => {
  const rows = await rowsOf(file, flags)
  const internvl = await loadWithProgress({
    ...(folder === undefined ? {} : { model: folder }),
    ...(flags.engine ? { engine: flags.engine } : {})
  })
  const { answer } = await import('../../answer.js')
  const begun = performance.now()
  const scored: Scored[] = []
  for (const few of chunks(rows, 24)) {
    const prompts = few.map((row) => split(row).prompt)
    const { texts } = await answer(internvl, prompts, { maxPatches: 1, maxNewTokens: 64, doSample: false })
    scored.push(...few.map((row, i) => score(row, texts[i]!)))
  }
  const summary = summarize(scored)
  const source = file ?? `${rows.length} scenes of seed ${flags.seed}`
  console.log(flags.json ? JSON.stringify({ source, model: internvl.dir, ...summary }, null, 2) : render(summary))
  say(`${source}: ${((performance.now() - begun) / 1000).toFixed(1)} s on ${internvl.engine.name}`)
  internvl.dispose()
}

/** `internvl demo-eval`: how much of the demo model's world a model knows. */
export const demoEvalCommand = (): Command =>
  new Command('demo-eval')
    .description('count the right answers of a model to scenes drawn for it, or to those of a file, by task')
    .argument('[folder]', 'the model; the demo model of the package by default')
    .argument('[file]', "questions in InternVL's jsonl, instead of drawn scenes")
    .option('--count <n>', 'scenes to draw', wholeNumber, 300)
    .option('--seed <n>', 'which scenes; training draws those of seed 1, and looks at some of 777', wholeNumber, 4242)
    .option('--json', 'the counts as JSON')
    .addOption(new Option('--engine <name>', 'where to compute; the best one at hand by default').choices(engineNames))
    .action(demoEval)
