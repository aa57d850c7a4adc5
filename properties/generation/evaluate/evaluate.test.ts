import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { demoModel, type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { evalCommand } from '../../../generation/cli/commands/eval-command.js'
import { choiceLikelihoods } from '../../../generation/evaluate/choice-likelihood.js'
import { compareEvaluations } from '../../../generation/evaluate/compare.js'
import { type DatasetRow, parseRow } from '../../../generation/evaluate/eval-dataset.js'
import { evaluate } from '../../../generation/evaluate/evaluate.js'
import { type EvaluatedRow, rowMetrics, score } from '../../../generation/evaluate/evaluated-row.js'
import { evaluationReport } from '../../../generation/evaluate/evaluation-report.js'
import { summarize } from '../../../generation/evaluate/evaluation-summary.js'
import { getOrThrow } from '../../../lib/error.js'

const circle = fileURLToPath(new URL('../../../generation/demo/circle.png', import.meta.url))

/** Output of `internvl eval`. */
const printed = async (...args: readonly string[]): Promise<string> => {
  const [log, lines] = [console.log, [] as string[]]
  console.log = (line: unknown) => void lines.push(String(line))
  try {
    await evalCommand()
      .exitOverride()
      .configureOutput({ writeErr: () => undefined })
      .parseAsync(['node', 'eval', ...args])
  } finally {
    console.log = log
  }
  return lines.join('\n')
}

const rowOf = (json: object, where = 'rows.jsonl:1'): DatasetRow => getOrThrow(parseRow(JSON.stringify(json), where, '/'))

describe('rows of an evaluation', () => {
  it('a row is a question with answers, options and a metric', () => {
    const row = rowOf({
      question: 'Which?',
      image: 'a.png',
      answers: [{ answer: 'B' }, 'b', 7],
      options: ['a cat', 'a dog'],
      metric: 'mc'
    })
    assert.deepEqual([row.answers, row.choices, row.metric], [['B', 'b', '7'], { A: 'a cat', B: 'a dog' }, 'mc'])
    assert.equal(score(row, 'x').expected, 'B')
    assert.equal(score(rowOf({ question: 'How many?', answer: 2 }), '2').correct, true)
    assert.equal(score(rowOf({ question: 'How many?', answer: ['2', 'two'] }), 'two').correct, true)
    assert.throws(() => rowOf({ question: 'Which?', answers: [{ text: 'B' }] }), /rows.jsonl:1: answers should be a list/)
  })

  it("the metric of a row is that of its task's choice, else its own, else the choice for all, else exact", () => {
    const [charts, docs, named] = [
      rowOf({ task: 'charts', question: 'x', answer: '1' }),
      rowOf({ task: 'docs', question: 'x', answer: '1' }),
      rowOf({ task: 'docs', metric: 'contains', question: 'x', answer: '1' })
    ]
    const names = (...choice: Parameters<typeof rowMetrics>[1][]) =>
      getOrThrow(rowMetrics([charts, docs, named], ...(choice as [string]))).map(({ name }) => name)
    assert.deepEqual(names(), ['exact', 'exact', 'contains'])
    assert.deepEqual(names('ANLS'), ['anls', 'anls', 'contains'])
    assert.deepEqual(names({ charts: 'relaxed', '*': 'anls' }), ['relaxed-accuracy', 'anls', 'contains'])
    assert.deepEqual(names({ docs: 'anls' }), ['exact', 'anls', 'anls'])
    const wrong = rowOf({ metric: 'vqa', question: 'x', answer: '1' }, 'rows.jsonl:9')
    assert.throws(() => getOrThrow(rowMetrics([wrong])), /rows\.jsonl:9: vqa-accuracy needs "answers"/)
    assert.throws(() => getOrThrow(rowMetrics([charts], { charts: 'iou' })), /has no box/)
    assert.throws(() => getOrThrow(rowMetrics([charts], 'likelihood')), /needs "options"/)
    assert.throws(() => getOrThrow(rowMetrics([charts], { none: 'bleu' })), /metric "bleu" is unknown/)
  })
})

describe('evaluate', () => {
  let internvl: InternVLCheckpoint
  let dir: string
  before(async () => {
    internvl = await load(demoModel)
    dir = await mkdtemp(join(tmpdir(), 'evaluate-'))
  })
  after(async () => {
    internvl.dispose()
    await rm(dir, { recursive: true })
  })

  it('scores each row by its metric, generated and by likelihood, with intervals by task', async () => {
    const ask = (json: object) => rowOf({ image: circle, question: '<image>\nDescribe the image.', ...json })
    const [first] = (await evaluate(internvl, [ask({ answer: '' })], { maxPatches: 1 })).rows
    const text = first!.answer
    assert.match(text, /circle/)
    const rows = [
      ask({ task: 'exact', answer: text }),
      ask({ task: 'exact', answer: 'no' }),
      ask({ task: 'contains', metric: 'contains', answer: 'circle' }),
      ask({ task: 'anls', metric: 'anls', answers: ['no', `${text.slice(0, -1)}!`] }),
      ask({ task: 'choice', metric: 'multiple-choice-likelihood', answer: text, options: ['Nothing', text, 'A square.'] }),
      ask({ task: 'choice', metric: 'likelihood', answer: 'Nothing', options: ['Nothing', text] })
    ]
    const { rows: scored, summary } = await evaluate(internvl, rows, { maxPatches: 1, batchSize: 4 })
    assert.deepEqual(scored.map(({ score }) => Math.round(score)), [1, 0, 1, 1, 1, 0]) // biome-ignore format: one line
    assert.equal(scored[3]!.score, 1 - 1 / text.length)
    assert.equal(scored[5]!.answer, text)
    assert.deepEqual(summary.tasks.exact, { right: 1, rows: 2 })
    assert.deepEqual(summary.scores.map(({ task }) => task), ['exact', 'contains', 'anls', 'choice', 'all']) // biome-ignore format: one line
    for (const { low, mean, high } of summary.scores) assert.ok(low <= mean && mean <= high)
    const likelihoods = await choiceLikelihoods(internvl, rows[0]!.messages.slice(0, 1), ['Nothing', text], { maxPatches: 1 })
    assert.equal(likelihoods[0]!.text, text)
    assert.ok(likelihoods.every(({ logProbability }) => logProbability < 0))
  })

  it('on the command line: metrics by task, a report with images in one file, a comparison of two runs', async () => {
    const file = join(dir, 'rows.jsonl')
    const question = '<image>\nDescribe the image.'
    const rows = [
      { id: 1, task: 'a', image: circle, question, answer: 'circle' },
      { id: 1, task: 'b', image: circle, question: `${question}<script>`, answer: '<b>"no"</b>' }
    ]
    await writeFile(file, rows.map((row) => JSON.stringify(row)).join('\n'))
    const [a, b, html] = [join(dir, 'a.jsonl'), join(dir, 'b.jsonl'), join(dir, 'a.html')]
    const json = JSON.parse(await printed(file, '--metric', 'a=contains', '-o', a, '--report', html, '--json'))
    assert.deepEqual(json.tasks, { a: { right: 1, rows: 1 }, b: { right: 0, rows: 1 } })
    const report = await readFile(html, 'utf8')
    assert.equal(report.match(/<img [^>]*src="data:image\/jpeg;base64,/g)?.length, 2)
    assert.ok(!report.includes('<script') && !report.includes('<b>'))
    assert.match(await printed(file, '-o', b), /^task +right +score/)
    const compared = JSON.parse(await printed('--compare', a, b, '--json'))
    assert.deepEqual([compared.all.a, compared.all.b, compared.all.worse, compared.all.test.p], [0.5, 0, 1, 1])
    assert.deepEqual(compared.changed.map((row: EvaluatedRow) => row.row), [0]) // biome-ignore format: one line
    const text = await printed('--compare', a, b, '--report', html)
    assert.match(text, /row 1, id 1, a: 1\.00 to 0\.00, expected "circle"/)
    assert.match(await readFile(html, 'utf8'), /data:image\/jpeg/)
  })

  it('errors name the file, the line and the metric', async () => {
    const file = join(dir, 'wrong.jsonl')
    await writeFile(file, '{"question": "x", "answer": "y"}\n')
    await assert.rejects(printed(file, '--metric', 'bleu'), /metric "bleu" is unknown; the metrics are exact/)
    await assert.rejects(printed(file, '--metric', 'cider'), /pycocoevalcap/)
    await assert.rejects(printed('--compare', file, file), /wrong\.jsonl:1: expected a line of eval --output/)
    await assert.rejects(printed('--compare', file), /--compare takes two files/)
    await assert.rejects(printed(), /missing required argument/)
  })
})

const evaluated = (scores: readonly number[]): readonly EvaluatedRow[] =>
  scores.map((points, row) => ({
    ...{ row, id: 'same', task: row % 2 ? 'odd' : 'even', metric: 'exact', question: '', media: [] },
    ...{ answer: `${points}`, expected: 'x', score: points, correct: points === 1 }
  }))

describe('a comparison', () => {
  it('is paired by line though ids repeat: changed rows, better and worse ones, and the difference of the means', () =>
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(2), fc.nat(2)), { minLength: 1, maxLength: 12 }), (pairs) => {
        const [a, b] = [evaluated(pairs.map(([x]) => x / 2)), evaluated(pairs.map(([, y]) => y / 2))]
        const { all, changed, otherAnswers } = getOrThrow(compareEvaluations(a, b, { samples: 50 }))
        assert.deepEqual(changed.map(({ row }) => row), pairs.flatMap(([x, y], row) => (x === y ? [] : [row]))) // biome-ignore format: one line
        assert.equal(all.better + all.worse, changed.length)
        assert.ok(Math.abs(all.difference - (all.b - all.a)) < 1e-12)
        assert.equal(otherAnswers, 0)
      })
    ))

  it('other rows are refused: another number, or another row in a line', () => {
    assert.throws(() => getOrThrow(compareEvaluations(evaluated([1]), evaluated([1, 0]))), /1 and 2 rows/)
    const other = evaluated([1, 0]).map((row) => ({ ...row, expected: row.row === 1 ? 'y' : 'x' }))
    assert.throws(() => getOrThrow(compareEvaluations(evaluated([1, 0]), other)), /row 2 is "same" \(expected "x"\)/)
  })

  it('the image shows the boxes of a box metric; an image that cannot be read is named', async () => {
    const answer = '<ref>circle</ref><box>[[10, 10, 500, 500]]</box>'
    const rows = [circle, '/none<i>.png'].map((source, row) => {
      const sample = rowOf({ image: source, question: '<image>\nFind the circle.', answer, metric: 'iou' })
      return score(sample, '[[10, 10, 500, 900]]', row, getOrThrow(rowMetrics([sample]))[0])
    })
    assert.equal(rows[0]!.score, 1)
    const report = await evaluationReport('boxes', { rows, summary: summarize(rows) })
    assert.match(report, /none&#60;i&#62;\.png/)
    const plain = await evaluationReport('boxes', {
      rows: rows.map((row) => ({ ...row, metric: 'exact' })),
      summary: summarize(rows)
    })
    assert.notEqual(/base64,([^"]+)/.exec(report)![1], /base64,([^"]+)/.exec(plain)![1])
  })
})
