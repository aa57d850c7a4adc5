import { createHash } from 'node:crypto'
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { SingleBar } from 'cli-progress'
import { Command, InvalidArgumentError, Option } from 'commander'
import { cacheFolder } from '../../../lib/engines/install/engine-folder.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { type DatasetRow, readDataset } from '../../evaluate/eval-dataset.js'
import { mediaOf, rowMetrics } from '../../evaluate/evaluated-row.js'
import { renderSummary } from '../../evaluate/evaluation-summary.js'
import { metrics } from '../../evaluate/metrics/metric.js'
import { modelIdentity } from '../../jobs/model-identity.js'
import {
  answerOptions,
  appendValue,
  info,
  loadWithProgress,
  type ModelFlags,
  positiveInteger,
  withModelOptions
} from '../common.js'
import { precisionOptions } from '../flags/precision-flags.js'

interface EvalFlags extends ModelFlags {
  readonly metric?: readonly string[]
  readonly batchSize: number
  readonly output?: string
  readonly report?: string
  readonly compare?: readonly string[]
  readonly bootstrap: number
  readonly confidence: number
  readonly seed: number
  readonly restart?: true
  readonly json?: true
}

/** Local files of the rows' images and videos with their sizes and times: an image with other content may have another answer. */
const mediaStates = async (rows: readonly DatasetRow[]): Promise<readonly string[]> => {
  const paths = new Set(rows.flatMap(({ messages }) => mediaOf(messages)))
  const state = (path: string) =>
    stat(path).then(
      ({ size, mtimeMs }) => `${size} ${mtimeMs}`,
      () => ''
    )
  return Promise.all([...paths].map(state))
}

/**
 * Path of the journal, which stores the answers of an interrupted evaluation. Its name is a hash of everything that determines the
 * answers: the rows, images and videos of the dataset, the files of the model and of the adapter, and the options.
 */
const journalFor = async (file: string, rows: readonly DatasetRow[], model: string, flags: EvalFlags): Promise<string> => {
  const { metric, adapter, imageBackend, parts } = flags
  const identity = JSON.stringify([
    await readFile(file, 'utf8'),
    await mediaStates(rows),
    await modelIdentity(model, { ...precisionOptions(flags), adapter, imageBackend, parts }),
    { metric, ...answerOptions(flags) }
  ])
  return join(cacheFolder(), 'eval', `${createHash('sha256').update(identity).digest('hex').slice(0, 24)}.jsonl`)
}

/** A progress bar of rows on standard error. */
const progressOf = (total: number) => {
  const bar = new SingleBar({
    format: 'eval [{bar}] {value}/{total} rows, {eta_formatted} left',
    stream: process.stderr,
    hideCursor: true
  })
  let isShown = false
  const onProgress = (done: number, resumed: number): void => {
    if (!isShown && resumed > 0) info(`resuming after ${resumed} of ${total} answers; --restart starts again`)
    if (!isShown && process.stderr.isTTY) bar.start(total, done)
    isShown = true
    bar.update(done)
  }
  return { onProgress, stop: () => bar.stop() }
}

/** `--metric anls --metric chart=relaxed-accuracy`: metrics by task, `*` for all other tasks. */
const metricChoice = (given: readonly string[] = []): Readonly<Record<string, string>> =>
  Object.fromEntries(
    given.map((text) => {
      const at = text.lastIndexOf('=')
      return at < 0 ? ['*', text] : [text.slice(0, at), text.slice(at + 1)]
    })
  )

/** Writes a file whole: a file that existed before stays until the new one is complete. */
const writeWhole = async (file: string, text: string): Promise<void> => {
  const partial = `${file}.${process.pid}.partial`
  await writeFile(partial, text)
  await rename(partial, file)
}

const evaluateFile = async (file: string, given: EvalFlags): Promise<void> => {
  const flags = { maxPatches: 1, ...given } // the evaluation set of the demo model uses one tile
  const rows = await orThrow(readDataset(file))
  const metric = metricChoice(flags.metric)
  getOrThrow(rowMetrics(rows, metric)) // before the model is loaded
  const internvl = await loadWithProgress(flags)
  const startTime = performance.now()
  const journal = await journalFor(file, rows, internvl.dir, flags)
  const { evaluate } = await import('../../evaluate/evaluate.js')
  const { onProgress, stop } = progressOf(rows.length)
  const { batchSize, restart, confidence, seed, bootstrap: samples } = flags
  const options = { metric, journal, batchSize, restart, confidence, seed, samples, onProgress }
  const evaluation = await evaluate(internvl, rows, { ...answerOptions(flags), ...options }).finally(stop)
  if (flags.output) await writeWhole(flags.output, evaluation.rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  if (flags.report) {
    const { evaluationReport } = await import('../../evaluate/evaluation-report.js')
    await writeWhole(flags.report, await evaluationReport(`${basename(file)} by ${basename(internvl.dir)}`, evaluation))
  }
  await rm(journal, { force: true })
  const { summary } = evaluation
  const described = { file, model: internvl.dir, engine: internvl.engine.name, ...precisionOptions(flags), ...summary }
  console.log(flags.json ? JSON.stringify(described, null, 2) : renderSummary(summary))
  info(`${rows.length} rows in ${((performance.now() - startTime) / 1000).toFixed(1)} s on ${internvl.engine.name}`)
  internvl.dispose()
}

/** `--compare a.jsonl b.jsonl`. */
const compareFiles = async (files: readonly string[], flags: EvalFlags): Promise<void> => {
  const [a, b] = files as readonly [string, string]
  const { readEvaluation, compareEvaluations, renderComparison } = await import('../../evaluate/compare.js')
  const evaluations = [await orThrow(readEvaluation(a)), await orThrow(readEvaluation(b))] as const
  const { confidence, seed, bootstrap: samples } = flags
  const comparison = getOrThrow(compareEvaluations(...evaluations, { confidence, seed, samples }))
  if (flags.report) {
    const { comparisonReport } = await import('../../evaluate/evaluation-report.js')
    await writeWhole(flags.report, await comparisonReport(`${basename(a)} (a) and ${basename(b)} (b)`, comparison))
  }
  console.log(flags.json ? JSON.stringify({ a, b, ...comparison }, null, 2) : renderComparison(comparison))
}

/** Parses a probability between 0 and 1 for commander. */
const probability = (text: string): number => {
  const value = Number(text)
  if (!(value > 0 && value < 1)) throw new InvalidArgumentError('Expected a number between 0 and 1, such as 0.95.')
  return value
}

const seedNumber = (text: string): number => {
  if (!Number.isSafeInteger(Number(text)) || text.trim() === '') throw new InvalidArgumentError('Expected a whole number.')
  return Number(text)
}

const examples = `
Images use one tile unless --max-patches is given.

Metrics: ${Object.keys(metrics).join(', ')}.
A row may name its own ("metric"). The metric of a task's flag is used before the row's own, and that before the flag without a task.

Examples:
  internvl eval questions.jsonl --model InternVL3-1B-hf
  internvl eval questions.jsonl --metric exact --metric charts=relaxed-accuracy --metric docs=anls
  internvl eval questions.jsonl --output int4.jsonl --report int4.html --quantize int4
  internvl eval --compare float32.jsonl int4.jsonl`

/** `internvl eval`: answers the questions of a file and scores the answers, or compares two evaluations. */
export const evalCommand = (): Command => {
  const command = withModelOptions(new Command('eval'))
  return command
    .description('answer every row of a jsonl file and score the answers; compare two evaluations')
    .argument('[file]', 'jsonl file; image paths are relative to the file')
    .addHelpText('after', examples)
    .option('--metric <[task=]name>', 'metric of all rows, or of one task; repeatable; default: exact', appendValue)
    .option('--batch-size <n>', 'rows per batch', positiveInteger, 8)
    .option('-o, --output <file>', 'write every answer with its score to a jsonl file')
    .option('--report <file>', 'write an HTML report with images')
    .addOption(new Option('--html <file>', 'alias of --report').hideHelp())
    .option('--compare <files...>', 'compare two files that --output wrote: a paired test, and the rows that changed')
    .option('--bootstrap <n>', 'resamples of the confidence intervals', positiveInteger, 2000)
    .option('--confidence <p>', 'probability of the confidence intervals', probability, 0.95)
    .option('--seed <n>', 'seed of the resamples', seedNumber, 0)
    .option('--restart', 'start again instead of resuming an interrupted evaluation')
    .option('--json', 'print the scores as JSON')
    .action(async (file: string | undefined, { html, ...given }: EvalFlags & { readonly html?: string }) => {
      const flags = { ...given, ...(html === undefined ? {} : { report: html }) }
      const { compare } = flags
      if (compare && (file !== undefined || compare.length !== 2))
        command.error('error: --compare takes two files that --output wrote, and no other argument', { exitCode: 2 })
      if (compare) return compareFiles(compare, flags)
      if (file === undefined) return command.error("error: missing required argument 'file'", { exitCode: 2 })
      return evaluateFile(file, flags)
    })
}
