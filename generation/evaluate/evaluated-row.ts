import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Issues, validateAll, whenValid } from '../../lib/error.js'
import { imageSourceOf, itemsOf, type Messages, videoSourceOf } from '../../processors/text/messages.js'
import type { DatasetRow } from './dataset-row.js'
import { type Metric, metricOf, metrics, type References, referenceIssues } from './metrics/metric.js'

/** One answer with its score: a line of the file that `internvl eval --output` writes. */
export interface EvaluatedRow {
  /** Index of the row in the dataset, from 0; rows are counted by line, and may share an id. */
  readonly row: number
  readonly id: string
  readonly task: string
  readonly metric: string
  /** The last question. */
  readonly question: string
  /** Paths and addresses of images, frames and videos. */
  readonly media: readonly string[]
  readonly answer: string
  readonly expected: string
  /** All correct answers, where the row has a list. */
  readonly answers?: readonly string[]
  /** From 0 to 1. */
  readonly score: number
  /** Whether the score is 1. */
  readonly correct: boolean
  readonly transformers?: string
  readonly sameAsTransformers?: boolean
}

/** A metric for all rows, or metrics by task; `*` is the task of all other rows. */
export type MetricChoice = string | Readonly<Record<string, string>>

const textOf = (message: Messages[number]): string =>
  itemsOf(message)
    .map((item) => (item.type === 'text' ? item.text : ''))
    .join('')

/** The prompt (all messages before the last answer) and the expected answer. */
export const splitPrompt = ({ messages, answers }: DatasetRow): { readonly prompt: Messages; readonly expected: string } => {
  const last = messages.findLastIndex(({ role }) => role === 'assistant')
  return last < 0
    ? { prompt: messages, expected: answers?.[0] ?? '' }
    : { prompt: messages.slice(0, last), expected: textOf(messages[last]!) }
}

export const referencesOf = (row: DatasetRow): References => {
  const { expected } = splitPrompt(row)
  return { expected, answers: row.answers ?? [expected], choices: row.choices }
}

/** Paths and addresses of the media of a conversation; bytes and pixels have none. */
export const mediaOf = (messages: Messages): readonly string[] =>
  messages.flatMap(itemsOf).flatMap((item) => {
    if (item.type === 'text') return []
    const source = item.type === 'image' ? imageSourceOf(item) : videoSourceOf(item)
    return [source].flat().flatMap((one) => (typeof one === 'string' ? [one] : one instanceof URL ? [one.href] : []))
  })

/**
 * The metric of each row: the choice for its task, else the row's own, else the choice for all rows, else `exact`. Errors: unknown metrics, and
 * rows whose references do not fit their metric.
 */
export const rowMetrics = (rows: readonly DatasetRow[], choice: MetricChoice = {}): E.Either<Issues, readonly Metric[]> => {
  const byTask = new Map(Object.entries(typeof choice === 'string' ? { '*': choice } : choice))
  const names = rows.map(({ task, metric }) => byTask.get(task) ?? metric ?? byTask.get('*') ?? 'exact')
  const distinct = [...new Set([...names, ...byTask.values()])]
  return pipe(
    validateAll(distinct.map((name) => E.Functor.map(metricOf(name), (metric) => [name, metric] as const))),
    E.map((found) => new Map(found)),
    E.map((found) => names.map((name) => found.get(name)!)),
    E.chain((found) =>
      whenValid(
        rows.flatMap((row, i) => referenceIssues(found[i]!, referencesOf(row), row.where ?? `row ${i + 1}`)),
        () => found
      )
    )
  )
}

/** Scores an answer; by default it is right if equal to the expected answer, ignoring white space at both ends. */
export const score = (row: DatasetRow, answer: string, index = 0, metric: Metric = metrics.exact): EvaluatedRow => {
  const { prompt, expected } = splitPrompt(row)
  const { id, task, answers, transformers } = row
  const points = metric.score(answer, referencesOf(row))
  return {
    row: index,
    id,
    task,
    metric: metric.name,
    question: textOf(prompt.findLast(({ role }) => role === 'user') ?? { role: 'user', content: '' }),
    media: mediaOf(prompt),
    answer,
    expected,
    ...(answers ? { answers } : {}),
    score: points,
    correct: points === 1,
    ...(transformers === undefined ? {} : { transformers, sameAsTransformers: answer === transformers })
  }
}
