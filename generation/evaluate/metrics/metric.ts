import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, invalid, issue, valueText } from '../../../lib/error.js'
import { boxAccuracy, boxesOf, meanIou } from './box-metrics.js'
import { type Choices, choiceMatch, expectedLetter, lettersOnly } from './multiple-choice.js'
import { anls, containsMatch, exactMatch, relaxedAccuracy } from './text-metrics.js'
import { vqaAccuracy } from './vqa-accuracy.js'

/** The references of a row. */
export interface References {
  /** The expected answer. */
  readonly expected: string
  /** All correct answers, or the answers of several people; `[expected]` where a row has no list. */
  readonly answers: readonly string[]
  readonly choices?: Choices | undefined
}

/** Scores answers of one kind of task. */
export interface Metric {
  readonly name: string
  /** Score of an answer from 0 to 1; 1 counts as right. */
  readonly score: (answer: string, references: References) => number
  /** Sentence about references with which the metric has no meaning; undefined for valid references. */
  readonly problem?: (references: References) => string | undefined
  /** Whether the answer is the most probable option instead of generated text. */
  readonly byLikelihood?: true
  /** Whether the answer has boxes, so that their tags are decoded. */
  readonly hasBoxes?: true
}

const needsChoices = ({ choices, expected }: References): string | undefined => {
  if (choices === undefined) return 'multiple-choice-likelihood needs "options", a list of texts'
  return expectedLetter(expected, choices) === undefined
    ? `the expected answer ${valueText(expected)} is none of the options`
    : undefined
}

const needsBoxes = ({ expected }: References): string | undefined =>
  boxesOf(expected).length === 0 ? `the expected answer ${valueText(expected)} has no box [[x1, y1, x2, y2]]` : undefined

const scoreChoice = (answer: string, { expected, choices }: References): number =>
  choiceMatch(answer, expected, choices ?? lettersOnly)

const boxMetric = (threshold: number): Metric => ({
  name: `iou@${threshold}`,
  score: (answer, { expected }) => boxAccuracy(answer, expected, threshold),
  problem: needsBoxes,
  hasBoxes: true
})

/** All metrics by name; `iou@T` takes other thresholds too. */
export const metrics = {
  exact: { name: 'exact', score: (answer, { answers }) => exactMatch(answer, answers) },
  contains: { name: 'contains', score: (answer, { answers }) => containsMatch(answer, answers) },
  anls: { name: 'anls', score: (answer, { answers }) => anls(answer, answers) },
  'relaxed-accuracy': { name: 'relaxed-accuracy', score: (answer, { answers }) => relaxedAccuracy(answer, answers) },
  'vqa-accuracy': {
    name: 'vqa-accuracy',
    score: (answer, { answers }) => vqaAccuracy(answer, answers),
    problem: ({ answers }) =>
      answers.length < 4 ? 'vqa-accuracy needs "answers" of at least four people, ten in VQAv2' : undefined
  },
  'multiple-choice': { name: 'multiple-choice', score: scoreChoice },
  'multiple-choice-likelihood': {
    name: 'multiple-choice-likelihood',
    score: scoreChoice,
    problem: needsChoices,
    byLikelihood: true
  },
  'iou@0.5': boxMetric(0.5),
  'mean-iou': {
    name: 'mean-iou',
    score: (answer, { expected }) => meanIou(answer, expected),
    problem: needsBoxes,
    hasBoxes: true
  }
} as const satisfies Record<string, Metric>

const aliases: Readonly<Record<string, keyof typeof metrics>> = {
  'exact-match': 'exact',
  relaxed: 'relaxed-accuracy',
  chartqa: 'relaxed-accuracy',
  vqa: 'vqa-accuracy',
  'vqa-score': 'vqa-accuracy',
  mc: 'multiple-choice',
  letter: 'multiple-choice',
  'multiple-choice-letter': 'multiple-choice',
  likelihood: 'multiple-choice-likelihood',
  iou: 'iou@0.5',
  box: 'iou@0.5'
}

const noCider =
  'CIDEr has no package for Node.js; write the answers with --output and score them in Python with pycocoevalcap (see docs/evaluation.md)'

/** The metric of a name, without regard to case, `_` and `-`. Error: `Metric`, a name that no metric has. */
export const metricOf = (name: string): E.Either<Issues, Metric> => {
  const key = name.trim().toLowerCase().replaceAll('_', '-')
  const known: Readonly<Record<string, Metric>> = metrics
  const found = Object.hasOwn(known, key) ? known[key] : Object.hasOwn(aliases, key) ? known[aliases[key]!] : undefined
  if (found) return E.right(found)
  const threshold = Number(/^iou@(0?\.\d+|1)$/.exec(key)?.[1] ?? 0)
  if (threshold > 0) return E.right(boxMetric(threshold))
  if (/^cider(-d)?$/.test(key)) return invalid('Metric', `metric ${name}: ${noCider}`, { metric: name })
  return invalid('Metric', `metric ${valueText(name)} is unknown; the metrics are ${Object.keys(metrics).join(', ')}`, {
    metric: name
  })
}

/** The issue of a row whose references do not fit its metric. */
export const referenceIssues = (metric: Metric, references: References, where: string): readonly Issue[] => {
  const problem = metric.problem?.(references)
  return problem === undefined ? [] : [issue('Metric', `${where}: ${problem}`, { where, metric: metric.name })]
}
