import { createHash } from 'node:crypto'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import { cacheFolder } from '../../../lib/engines/install/engine-folder.js'
import { orThrow } from '../../../lib/error.js'
import { itemsOf, type Messages } from '../../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import { type DatasetRow, readDataset } from '../../evaluate/eval-dataset.js'
import { evaluateRows } from '../../evaluate/eval-journal.js'
import { folderIdentity } from '../../evaluate/folder-identity.js'
import { answerOptions, info, loadWithProgress, type ModelFlags, positiveInteger, withModelOptions } from '../common.js'
import { precisionOptions } from '../flags/precision-flags.js'

interface EvalFlags extends ModelFlags {
  readonly batchSize: number
  readonly output?: string
  readonly restart?: true
  readonly json?: true
}

/** One answer, as the journal of a running evaluation stores it. */
export interface EvaluatedRow {
  readonly id: string
  readonly task: string
  readonly answer: string
  readonly expected: string
  readonly correct: boolean
  readonly transformers?: string
  readonly sameAsTransformers?: boolean
}

/** Correct answers and all answers. */
interface Count {
  readonly right: number
  readonly rows: number
}

const count = (rows: readonly boolean[]): Count => ({ right: rows.filter(Boolean).length, rows: rows.length })

/** Accuracy by task and over all rows; for rows with an answer of Transformers, also the number of equal answers. */
export const summarize = (scored: readonly EvaluatedRow[]) => {
  const tasks = [...new Set(scored.map(({ task }) => task))]
  const compared = scored.flatMap(({ sameAsTransformers: same }) => (same === undefined ? [] : [same]))
  return {
    tasks: Object.fromEntries(
      tasks.map((task) => [task, count(scored.filter((row) => row.task === task).map((row) => row.correct))])
    ),
    all: count(scored.map(({ correct }) => correct)),
    ...(compared.length > 0 ? { sameAsTransformers: count(compared) } : {})
  }
}

const line = (name: string, { right, rows }: Count): string =>
  `${name.padEnd(22)}${`${right}/${rows}`.padStart(9)}  ${((100 * right) / Math.max(1, rows)).toFixed(1)} %`

/** Renders the counts as a table, one task per line. */
export const renderSummary = (summary: ReturnType<typeof summarize>): string =>
  [
    ...Object.entries(summary.tasks).map(([task, counted]) => line(task, counted)),
    line('all', summary.all),
    ...(summary.sameAsTransformers ? [line('equal to Transformers', summary.sameAsTransformers)] : [])
  ].join('\n')

const textOf = (message: Messages[number]): string =>
  itemsOf(message)
    .map((item) => (item.type === 'text' ? item.text : ''))
    .join('')

/** The prompt (all messages before the last answer) and the expected answer. */
export const splitPrompt = ({ messages }: DatasetRow): { readonly prompt: Messages; readonly expected: string } => {
  const last = messages.findLastIndex(({ role }) => role === 'assistant')
  return last < 0 ? { prompt: messages, expected: '' } : { prompt: messages.slice(0, last), expected: textOf(messages[last]!) }
}

/** Scores an answer: correct if equal to the expected answer, ignoring leading and trailing whitespace. */
export const score = (row: DatasetRow, answer: string): EvaluatedRow => {
  const { expected } = splitPrompt(row)
  const correct = answer.trim() === expected.trim()
  const { id, task, transformers } = row
  return {
    id,
    task,
    answer,
    expected,
    correct,
    ...(transformers === undefined ? {} : { transformers, sameAsTransformers: answer === transformers })
  }
}

/** Local image files of the rows with their sizes and times: an image with other content may have another answer. */
const imageStates = async (rows: readonly DatasetRow[]): Promise<readonly string[]> => {
  const items = rows.flatMap(({ messages }) => messages.flatMap(itemsOf))
  const paths = new Set(items.flatMap((item) => ('path' in item && typeof item.path === 'string' ? [item.path] : [])))
  const state = (path: string) =>
    stat(path).then(
      ({ size, mtimeMs }) => `${size} ${mtimeMs}`,
      () => ''
    )
  return Promise.all([...paths].map(state))
}

/**
 * Path of the journal, which stores the answers of an interrupted evaluation. Its name is a hash of everything that determines the
 * answers: the rows and images of the dataset, the files of the model and of the adapter, and the options.
 */
const journalFor = async (file: string, rows: readonly DatasetRow[], model: string, flags: EvalFlags): Promise<string> => {
  const { dtype, quantize, adapter } = flags
  const identity = JSON.stringify([
    await readFile(file, 'utf8'),
    await imageStates(rows),
    await folderIdentity(model),
    adapter === undefined ? null : await folderIdentity(adapter),
    { dtype, quantize, ...answerOptions(flags) }
  ])
  return join(cacheFolder(), 'eval', `${createHash('sha256').update(identity).digest('hex').slice(0, 24)}.jsonl`)
}

export const chunks = <A>(rows: readonly A[], size: number): readonly (readonly A[])[] =>
  Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => rows.slice(i * size, (i + 1) * size))

const answerAll = async (internvl: InternVLCheckpoint, rows: readonly DatasetRow[], flags: EvalFlags, journal: string) => {
  const { answer } = await import('../../answer.js')
  const bar = new SingleBar({
    format: 'eval [{bar}] {value}/{total} rows, {eta_formatted} left',
    stream: process.stderr,
    hideCursor: true
  })
  let isShown = false
  const onProgress = (done: number, resumed: number): void => {
    if (!isShown && resumed > 0) info(`resuming after ${resumed} of ${rows.length} answers; --restart starts again`)
    if (!isShown && process.stderr.isTTY) bar.start(rows.length, done)
    isShown = true
    bar.update(done)
  }
  const evaluate = async (batch: readonly DatasetRow[]): Promise<readonly EvaluatedRow[]> => {
    const prompts = batch.map((row) => splitPrompt(row).prompt)
    const { texts } = await answer(internvl, prompts, { ...answerOptions(flags), doSample: false })
    return batch.map((row, i) => score(row, texts[i]!))
  }
  const { batchSize, restart } = flags
  return evaluateRows(rows, journal, { batchSize, restart, evaluate, onProgress }).finally(() => bar.stop())
}

const evaluate = async (file: string, given: EvalFlags): Promise<void> => {
  const flags = { maxPatches: 1, ...given } // the evaluation set of the demo model uses one tile
  const rows = await orThrow(readDataset(file))
  const internvl = await loadWithProgress(flags)
  const startTime = performance.now()
  const journal = await journalFor(file, rows, internvl.dir, flags)
  const scored = await answerAll(internvl, rows, flags, journal)
  if (flags.output) await writeFile(flags.output, scored.map((s) => `${JSON.stringify(s)}\n`).join(''))
  await rm(journal, { force: true })
  const summary = summarize(scored)
  console.log(
    flags.json
      ? JSON.stringify(
          { file, model: internvl.dir, engine: internvl.engine.name, ...precisionOptions(flags), ...summary },
          null,
          2
        )
      : renderSummary(summary)
  )
  info(`${rows.length} rows in ${((performance.now() - startTime) / 1000).toFixed(1)} s on ${internvl.engine.name}`)
  internvl.dispose()
}

/** `internvl eval`: answers the questions of a file and counts exact matches. */
export const evalCommand = (): Command =>
  withModelOptions(new Command('eval'))
    .description('answer every row of a jsonl file and count the correct answers')
    .argument('<file>', 'jsonl file; image paths are relative to the file')
    .addHelpText(
      'after',
      '\nImages use one tile unless --max-patches is given.\n\nExample:\n  internvl eval questions.jsonl --model InternVL3-1B-hf'
    )
    .option('--batch-size <n>', 'rows per batch', positiveInteger, 8)
    .option('-o, --output <file>', 'write every answer to a jsonl file')
    .option('--restart', 'start again instead of resuming an interrupted evaluation')
    .option('--json', 'print the counts as JSON')
    .action(evaluate)
