import { getOrThrow } from '../../lib/error.js'
import { type AnswerOptions, answer } from '../answer.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { groundedText } from '../grounding.js'
import { choiceLikelihoods, choiceTexts } from './choice-likelihood.js'
import type { DatasetRow } from './dataset-row.js'
import { evaluateRows } from './eval-journal.js'
import { type EvaluatedRow, type MetricChoice, referencesOf, rowMetrics, score, splitPrompt } from './evaluated-row.js'
import { type EvaluationSummary, summarize } from './evaluation-summary.js'
import type { BootstrapOptions } from './metrics/bootstrap.js'
import type { Metric } from './metrics/metric.js'

export interface EvaluateOptions extends Omit<AnswerOptions, 'numReturnSequences' | 'returnCache' | 'seed'>, BootstrapOptions {
  /** Metric of all rows, or metrics by task; a row may name its own. Default: `exact`. */
  readonly metric?: MetricChoice
  /** Rows that are answered together: 8 by default. */
  readonly batchSize?: number
  /** File in which the answers of an interrupted evaluation stay; the caller deletes the file. */
  readonly journal?: string
  /** Ignore the answers in the journal. */
  readonly restart?: boolean | undefined
  /** Called at the start and after each batch with the number of answered rows; `resumed` of them are from the journal. */
  readonly onProgress?: (done: number, resumed: number) => void
}

export interface Evaluation {
  /** Every row with its answer and score, in the order of the dataset. */
  readonly rows: readonly EvaluatedRow[]
  readonly summary: EvaluationSummary
}

interface Task {
  readonly row: DatasetRow
  readonly metric: Metric
}

/** The most probable option of a multiple-choice row. */
const likeliestChoice = async (internvl: InternVLCheckpoint, row: DatasetRow, options: AnswerOptions): Promise<string> => {
  const { choices = {}, expected } = referencesOf(row)
  const { prompt } = splitPrompt(row)
  const [best] = await choiceLikelihoods(internvl, prompt, choiceTexts(choices, expected), options)
  return best!.text
}

/** Answers of a batch in order: generated texts, with box tags where the metric reads boxes, and most probable options. */
const answersOf = async (internvl: InternVLCheckpoint, batch: readonly Task[], options: AnswerOptions) => {
  const generated = batch.filter(({ metric }) => !metric.byLikelihood)
  const answers = new Map<Task, string>()
  if (generated.length > 0) {
    const prompts = generated.map(({ row }) => splitPrompt(row).prompt)
    const { texts, result } = await answer(internvl, prompts, { doSample: false, ...options })
    for (const [i, task] of generated.entries())
      answers.set(task, task.metric.hasBoxes ? groundedText(internvl.processor.tokenizer, result.sequences[i]!) : texts[i]!)
  }
  for (const task of batch) if (task.metric.byLikelihood) answers.set(task, await likeliestChoice(internvl, task.row, options))
  return batch.map((task) => ({ answer: answers.get(task)! }))
}

/**
 * Answers every row of a dataset and scores the answers, with confidence intervals. Decoding is greedy unless `doSample` is given. Throws an
 * `InternVLError` for unknown metrics, rows that do not fit their metric and images that cannot be read.
 *
 * `const { summary } = await evaluate(internvl, await orThrow(readDataset('questions.jsonl')), { metric: 'anls' })`
 */
export const evaluate = async (
  internvl: InternVLCheckpoint,
  rows: readonly DatasetRow[],
  options: EvaluateOptions = {}
): Promise<Evaluation> => {
  const { metric, batchSize = 8, journal, restart, onProgress, samples, confidence, seed, ...answering } = options
  const found = getOrThrow(rowMetrics(rows, metric))
  const tasks = rows.map((row, i): Task => ({ row, metric: found[i]! }))
  const answered = await evaluateRows(tasks, journal, {
    batchSize,
    restart,
    evaluate: (batch) => answersOf(internvl, batch, { ...answering, ...(seed === undefined ? {} : { seed }) }),
    ...(onProgress ? { onProgress } : {})
  })
  const scored = tasks.map(({ row, metric }, i) => score(row, answered[i]!.answer, i, metric))
  const bootstrap = { ...(samples === undefined ? {} : { samples }), ...(confidence === undefined ? {} : { confidence }) }
  return { rows: scored, summary: summarize(scored, { ...bootstrap, ...(seed === undefined ? {} : { seed }) }) }
}
