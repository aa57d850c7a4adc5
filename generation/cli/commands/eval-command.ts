import { createHash } from 'node:crypto'
import { appendFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { SingleBar } from 'cli-progress'
import { Command } from 'commander'
import { cacheFolder } from '../../../lib/engines/install/engine-folder.js'
import { orThrow } from '../../../lib/error.js'
import type { Messages } from '../../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../../checkpoint/load.js'
import { type DatasetRow, readDataset } from '../../evaluate/eval-dataset.js'
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

const textOf = ({ content }: Messages[number]): string =>
  typeof content === 'string' ? content : content.map((item) => (item.type === 'text' ? item.text : '')).join('')

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

/** Path of the journal, which stores the answers of an interrupted evaluation: one file for each dataset, model and set of options. */
const journalFor = async (file: string, model: string, flags: EvalFlags): Promise<string> => {
  const { maxNewTokens, maxPatches, dtype, quantize, adapter, visualDelta } = flags
  const identity = JSON.stringify([
    ...[await readFile(file, 'utf8'), resolve(model), maxNewTokens, maxPatches, dtype, quantize],
    ...(adapter === undefined ? [] : [resolve(adapter)]),
    ...(visualDelta === undefined ? [] : [{ visualDelta }])
  ])
  return join(cacheFolder(), 'eval', `${createHash('sha256').update(identity).digest('hex').slice(0, 24)}.jsonl`)
}

/** The answers of an interrupted evaluation. An incomplete last line is dropped. */
const readJournal = async (journal: string): Promise<readonly EvaluatedRow[]> => {
  const text = await readFile(journal, 'utf8').catch(() => '')
  return text
    .split('\n')
    .slice(0, -1)
    .map((entry) => JSON.parse(entry) as EvaluatedRow)
}

export const chunks = <A>(rows: readonly A[], size: number): readonly (readonly A[])[] =>
  Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => rows.slice(i * size, (i + 1) * size))

const answerAll = async (internvl: InternVLCheckpoint, rows: readonly DatasetRow[], flags: EvalFlags, journal: string) => {
  const { answer } = await import('../../answer.js')
  const before = flags.restart ? [] : await readJournal(journal)
  const answered = new Map(before.map((scored) => [scored.id, scored]))
  const missing = rows.filter(({ id }) => !answered.has(id))
  if (before.length > 0) info(`resuming after ${before.length} of ${rows.length} answers; --restart starts again`)
  await mkdir(dirname(journal), { recursive: true })
  if (flags.restart) await rm(journal, { force: true })
  const bar = new SingleBar({
    format: 'eval [{bar}] {value}/{total} rows, {eta_formatted} left',
    stream: process.stderr,
    hideCursor: true
  })
  if (process.stderr.isTTY) bar.start(rows.length, answered.size)
  try {
    for (const chunk of chunks(missing, flags.batchSize)) {
      const { texts } = await answer(
        internvl,
        chunk.map((row) => splitPrompt(row).prompt),
        { ...answerOptions(flags), doSample: false }
      )
      const scored = chunk.map((row, i) => score(row, texts[i]!))
      await appendFile(journal, scored.map((s) => `${JSON.stringify(s)}\n`).join(''))
      for (const s of scored) answered.set(s.id, s)
      bar.update(answered.size)
    }
  } finally {
    bar.stop()
  }
  return rows.map(({ id }) => answered.get(id)!)
}

const evaluate = async (file: string, given: EvalFlags): Promise<void> => {
  const flags = { maxPatches: 1, ...given } // the evaluation set of the demo model uses one tile
  const rows = await orThrow(readDataset(file))
  const internvl = await loadWithProgress(flags)
  const startTime = performance.now()
  const journal = await journalFor(file, internvl.dir, flags)
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
