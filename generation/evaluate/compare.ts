import { readFile } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import * as t from 'io-ts'
import { errorText, type Issues, issue, valueText, whenValid } from '../../lib/error.js'
import type { EvaluatedRow } from './evaluated-row.js'
import { alignColumns, percent } from './evaluation-summary.js'
import { type BootstrapOptions, bootstrapInterval, meanOf } from './metrics/bootstrap.js'
import { type PairedTest, pairedTest } from './metrics/paired-test.js'

/** Two answers to one row. */
export interface ChangedRow {
  readonly row: number
  readonly id: string
  readonly task: string
  readonly question: string
  readonly media: readonly string[]
  readonly expected: string
  readonly answers: { readonly a: string; readonly b: string }
  readonly scores: { readonly a: number; readonly b: number }
}

/** Mean scores of two evaluations of the same rows, their difference with its interval, and a paired test. */
export interface ScoreDifference {
  readonly task: string
  readonly rows: number
  readonly a: number
  readonly b: number
  /** `b − a`, with the bounds of the bootstrap over rows. */
  readonly difference: number
  readonly low: number
  readonly high: number
  readonly better: number
  readonly worse: number
  readonly test: PairedTest
}

export interface Comparison {
  readonly all: ScoreDifference
  /** Each task, where there are several. */
  readonly tasks: readonly ScoreDifference[]
  /** Rows with another score in b. */
  readonly changed: readonly ChangedRow[]
  /** Number of rows with another answer of the same score. */
  readonly otherAnswers: number
}

const rowType = t.intersection([
  t.type({ answer: t.string }),
  t.partial({ score: t.number, correct: t.boolean, expected: t.string, task: t.string, question: t.string, metric: t.string }),
  t.partial({ media: t.array(t.string), answers: t.array(t.string), id: t.union([t.string, t.number]) })
])

const parseRow = (line: string, where: string, row: number): E.Either<Issues, EvaluatedRow> =>
  pipe(
    E.tryCatch(
      () => JSON.parse(line) as unknown,
      (error): Issues => [issue('EvaluationFile', `${where}: not JSON (${errorText(error)})`, { where })]
    ),
    E.filterOrElse(
      (json): json is t.TypeOf<typeof rowType> => rowType.is(json) && (json.score ?? json.correct) !== undefined,
      (json): Issues => [
        issue('EvaluationFile', `${where}: expected a line of eval --output, with "answer" and "score", got ${valueText(json)}`, {
          where
        })
      ]
    ),
    E.map(({ id = row + 1, task = 'all', metric = 'exact', question = '', media = [], expected = '', ...json }) => {
      const score = json.score ?? (json.correct ? 1 : 0) // files before 0.3 have no score
      return { ...json, row, id: String(id), task, metric, question, media, expected, score, correct: score === 1 }
    })
  )

/** Reads the answers that `internvl eval --output` wrote. Errors: a file that cannot be read, and lines that are no answers. */
export const readEvaluation = (file: string): TE.TaskEither<Issues, readonly EvaluatedRow[]> =>
  pipe(
    TE.tryCatch(
      () => readFile(file, 'utf8'),
      (error): Issues => [
        issue('EvaluationFile', `${file}: cannot be read (${(error as NodeJS.ErrnoException).code})`, { path: file })
      ]
    ),
    TE.chainEitherK((text) => {
      const lines = text.split('\n').flatMap((line, i) => (line.trim() === '' ? [] : [{ line, where: `${file}:${i + 1}` }]))
      const rows = lines.map(({ line, where }, i) => parseRow(line, where, i))
      const issues = rows.flatMap((row) => (E.isLeft(row) ? row.left : []))
      const empty = rows.length === 0 ? [issue('EvaluationFile', `${file}: no rows`, { path: file })] : []
      return whenValid([...issues, ...empty], () => rows.flatMap((row) => (E.isRight(row) ? [row.right] : [])))
    })
  )

const difference = (
  task: string,
  pairs: ReadonlyArray<readonly [EvaluatedRow, EvaluatedRow]>,
  options: BootstrapOptions
): ScoreDifference => {
  const [a, b] = [pairs.map(([row]) => row.score), pairs.map(([, row]) => row.score)]
  const changes = a.map((score, i) => b[i]! - score)
  const { mean, low, high } = bootstrapInterval(changes, options)
  return {
    task,
    rows: pairs.length,
    a: meanOf(a),
    b: meanOf(b),
    ...{ difference: mean, low, high },
    better: changes.filter((change) => change > 0).length,
    worse: changes.filter((change) => change < 0).length,
    test: pairedTest(a, b, options.seed)
  }
}

const changedRow = ([a, b]: readonly [EvaluatedRow, EvaluatedRow]): ChangedRow => ({
  ...{ row: a.row, id: a.id, task: a.task, question: a.question, media: a.media, expected: a.expected },
  answers: { a: a.answer, b: b.answer },
  scores: { a: a.score, b: b.score }
})

/** The issue of two evaluations that are not of the same rows, line by line. */
const pairingIssues = (a: readonly EvaluatedRow[], b: readonly EvaluatedRow[]) => {
  if (a.length !== b.length)
    return [issue('Compare', `the two evaluations have ${a.length} and ${b.length} rows; both should be of one dataset`)]
  const at = a.findIndex(({ id, expected, task }, i) => id !== b[i]!.id || expected !== b[i]!.expected || task !== b[i]!.task)
  if (at < 0) return []
  const name = ({ id, expected }: EvaluatedRow) => `${valueText(id)} (expected ${valueText(expected)})`
  return [
    issue(
      'Compare',
      `row ${at + 1} is ${name(a[at]!)} in the one evaluation and ${name(b[at]!)} in the other; both should be of one dataset`
    )
  ]
}

/**
 * Compares two evaluations of one dataset, paired by line: mean scores, the difference with its confidence interval, a paired test, and the
 * rows with another score. Errors: evaluations of different rows.
 */
export const compareEvaluations = (
  a: readonly EvaluatedRow[],
  b: readonly EvaluatedRow[],
  options: BootstrapOptions = {}
): E.Either<Issues, Comparison> =>
  whenValid(pairingIssues(a, b), () => {
    const pairs = a.map((row, i) => [row, b[i]!] as const)
    const tasks = [...new Set(a.map(({ task }) => task))]
    const changed = pairs.filter(([one, other]) => one.score !== other.score)
    return {
      all: difference('all', pairs, options),
      tasks:
        tasks.length === 1
          ? []
          : tasks.map((task) =>
              difference(
                task,
                pairs.filter(([row]) => row.task === task),
                options
              )
            ),
      changed: changed.map(changedRow),
      otherAnswers: pairs.filter(([one, other]) => one.score === other.score && one.answer !== other.answer).length
    }
  })

const points = (share: number): string => `${share >= 0 ? '+' : '−'}${Math.abs(100 * share).toFixed(1)}`

const differenceCells = ({
  task,
  rows,
  a,
  b,
  difference,
  low,
  high,
  better,
  worse,
  test
}: ScoreDifference): readonly string[] => [
  ...[task, `${rows}`, percent(a), percent(b), points(difference), `(${points(low)} to ${points(high)})`],
  ...[`${better}`, `${worse}`, test.p < 0.0001 ? '< 0.0001' : test.p.toFixed(4), test.name]
]

/** Renders a comparison as a table, one task a line, and the changed rows. */
export const renderComparison = ({ all, tasks, changed, otherAnswers }: Comparison): string => {
  const header = ['task', 'rows', 'a', 'b', 'points', 'interval', 'better', 'worse', 'p', 'test']
  const rows = changed.flatMap(({ row, id, task, expected, answers, scores }) => [
    `row ${row + 1}, id ${id}, ${task}: ${scores.a.toFixed(2)} to ${scores.b.toFixed(2)}, expected ${JSON.stringify(expected)}`,
    `  a ${JSON.stringify(answers.a)}`,
    `  b ${JSON.stringify(answers.b)}`
  ])
  return [
    ...alignColumns([header, ...[...tasks, all].map(differenceCells)]),
    '',
    `${changed.length} rows have another score, ${otherAnswers} more another answer of the same score`,
    ...rows
  ].join('\n')
}
