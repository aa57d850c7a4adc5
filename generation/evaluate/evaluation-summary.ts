import type { EvaluatedRow } from './evaluated-row.js'
import { type BootstrapOptions, bootstrapInterval, type Interval } from './metrics/bootstrap.js'

/** Right answers (score 1) and all answers. */
export interface Count {
  readonly right: number
  readonly rows: number
}

/** Mean score of a task, from 0 to 1, with the bounds of its confidence interval. */
export interface TaskScore extends Interval {
  readonly task: string
  /** Names of the metrics of the task's rows. */
  readonly metrics: readonly string[]
  readonly rows: number
}

export interface EvaluationSummary {
  readonly tasks: Readonly<Record<string, Count>>
  readonly all: Count
  /** Rows with the answer of Transformers, and equal answers. */
  readonly sameAsTransformers?: Count
  /** Each task in the order of the rows, and `all`, where there are several tasks. */
  readonly scores: readonly TaskScore[]
  readonly confidence: number
}

const count = (rows: readonly boolean[]): Count => ({ right: rows.filter(Boolean).length, rows: rows.length })

const taskScore = (task: string, rows: readonly EvaluatedRow[], options: BootstrapOptions): TaskScore => ({
  task,
  metrics: [...new Set(rows.map(({ metric }) => metric))],
  rows: rows.length,
  ...bootstrapInterval(
    rows.map((row) => row.score),
    options
  )
})

/** Right answers and mean scores by task and over all rows; for rows with an answer of Transformers, also the number of equal answers. */
export const summarize = (scored: readonly EvaluatedRow[], options: BootstrapOptions = {}): EvaluationSummary => {
  const names = [...new Set(scored.map(({ task }) => task))]
  const tasks = names.map((name) => [name, scored.filter(({ task }) => task === name)] as const)
  const compared = scored.flatMap(({ sameAsTransformers: same }) => (same === undefined ? [] : [same]))
  const isRight = (rows: readonly EvaluatedRow[]) => count(rows.map(({ correct }) => correct))
  return {
    tasks: Object.fromEntries(tasks.map(([task, rows]) => [task, isRight(rows)])),
    all: isRight(scored),
    ...(compared.length > 0 ? { sameAsTransformers: count(compared) } : {}),
    scores: [
      ...tasks.map(([task, rows]) => taskScore(task, rows, options)),
      ...(tasks.length === 1 ? [] : [taskScore('all', scored, options)])
    ],
    confidence: options.confidence ?? 0.95
  }
}

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`

/** The columns of a table, each as wide as its widest cell; the first column is aligned on the left, the others on the right. */
export const alignColumns = (rows: readonly (readonly string[])[]): readonly string[] => {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd()
  )
}

/** Renders the scores as a table, one task a line: right answers, mean score with its interval, metric. */
export const renderSummary = ({ tasks, all, sameAsTransformers, scores, confidence }: EvaluationSummary): string => {
  const interval = (low: number, high: number) => `${(100 * low).toFixed(1)}–${percent(high)}`
  const countOf = (task: string): Count => tasks[task] ?? all
  const lines = scores.map(({ task, metrics, mean, low, high }) => {
    const { right, rows } = countOf(task)
    return [task, `${right}/${rows}`, percent(mean), `(${interval(low, high)})`, metrics.join(', ')]
  })
  const same = sameAsTransformers
  return [
    ...alignColumns([['task', 'right', 'score', `(${100 * confidence} %)`, 'metric'], ...lines]),
    ...(same ? [`equal to Transformers  ${same.right}/${same.rows}  ${percent(same.right / same.rows)}`] : [])
  ].join('\n')
}
