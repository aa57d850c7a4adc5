import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { bootstrapInterval, meanOf } from '../../../../generation/evaluate/metrics/bootstrap.js'
import { boxAccuracy, boxesOf, boxIou, matchedIous } from '../../../../generation/evaluate/metrics/box-metrics.js'
import { metricOf } from '../../../../generation/evaluate/metrics/metric.js'
import { choiceMatch, choicesOf, chosenLetter, expectedLetter } from '../../../../generation/evaluate/metrics/multiple-choice.js'
import { pairedTest } from '../../../../generation/evaluate/metrics/paired-test.js'
import { anls, containsMatch, exactMatch, relaxedAccuracy } from '../../../../generation/evaluate/metrics/text-metrics.js'
import { vqaAccuracy } from '../../../../generation/evaluate/metrics/vqa-accuracy.js'
import type { Corners } from '../../../../generation/grounding.js'
import { editDistance, getOrThrow } from '../../../../lib/error.js'

/** Scores by the published evaluation code; make_metrics.py writes them. */
const reference = JSON.parse(readFileSync(new URL('../../../reference/metrics/metrics.json', import.meta.url), 'utf8'))

interface Scored {
  readonly answer: string
  readonly references: readonly string[]
  readonly score: number
}

const assertScores = (cases: readonly Scored[], metric: (answer: string, references: readonly string[]) => number): void => {
  for (const { answer, references, score } of cases)
    assert.ok(Math.abs(metric(answer, references) - score) < 1e-9, `${JSON.stringify(answer)} and ${references}: ${score}`)
}

const box = fc.tuple(fc.nat(500), fc.nat(500), fc.integer({ min: 501, max: 1000 }), fc.integer({ min: 501, max: 1000 }))

describe('metrics', () => {
  it('VQA accuracy equals the official evaluation', () => assertScores(reference.vqa, vqaAccuracy))
  it('ANLS equals that of lmms-eval', () => assertScores(reference.anls, anls))
  it('relaxed accuracy equals that of lmms-eval', () => assertScores(reference.relaxed, relaxedAccuracy))

  it('the letter of an answer is that of VLMEvalKit', () => {
    for (const { answer, choices, letter } of reference.choice)
      assert.equal(chosenLetter(answer, choices) ?? null, letter, JSON.stringify(answer))
  })

  it('IoU equals that of lmms-eval, is symmetric, and 1 for equal boxes', () => {
    for (const { a, b, iou } of reference.iou) assert.ok(Math.abs(boxIou(a, b) - iou) < 1e-12)
    fc.assert(
      fc.property(box, box, (a, b) => {
        assert.equal(boxIou(a, b), boxIou(b, a))
        assert.equal(boxIou(a, a), 1)
      })
    )
  })

  it('edit distance is a metric', () =>
    fc.assert(
      fc.property(fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), (a, b, c) => {
        assert.equal(editDistance(a, b) === 0, a === b)
        assert.equal(editDistance(a, b), editDistance(b, a))
        assert.ok(editDistance(a, c) <= editDistance(a, b) + editDistance(b, c))
      })
    ))

  it('an answer that contains the reference does so with any case and spaces; an empty reference matches no answer', () => {
    assert.equal(containsMatch('There is  a\nRed circle.', ['a red CIRCLE']), 1)
    assert.equal(containsMatch('There is a circle.', ['square']), 0)
    assert.equal(containsMatch('x', ['', ' ']), 0)
    assert.equal(exactMatch(' x ', ['y', 'x']), 1)
    assert.equal(exactMatch('X', ['x']), 0)
  })

  it('options are a list or by letter; the expected answer is a letter or an option', () => {
    const choices = choicesOf(['a cat', 'a dog'])!
    assert.deepEqual(choices, { A: 'a cat', B: 'a dog' })
    assert.equal(choicesOf({ a: 'cat' }), undefined)
    assert.equal(choicesOf([]), undefined)
    assert.deepEqual(['B', '(B)', 'B.', 'a dog', 'C'].map((text) => expectedLetter(text, choices)), ['B', 'B', 'B', 'B', undefined]) // biome-ignore format: one line
    assert.equal(choiceMatch('The answer is B.', 'a dog', choices), 1)
    assert.equal(choiceMatch('A', 'a dog', choices), 0)
  })

  it('expected boxes are matched one to one in any order; of one expected box, the first box of the answer counts', () =>
    fc.assert(
      fc.property(fc.uniqueArray(box, { minLength: 2, maxLength: 4, selector: String }), (boxes) => {
        const text = (list: readonly Corners[]): string => `<ref>x</ref><box>${JSON.stringify(list)}</box>`
        assert.deepEqual(boxesOf(text(boxes)), boxes)
        assert.equal(boxAccuracy(text([...boxes].reverse()), text(boxes)), 1)
        assert.equal(
          boxAccuracy(JSON.stringify(boxes[1]), text(boxes)),
          boxAccuracy(`It is at ${JSON.stringify([boxes[1]])}.`, text(boxes))
        )
        assert.equal(matchedIous(text(boxes.slice(0, 1)), text(boxes)).filter((iou) => iou > 0).length, 1)
        assert.equal(boxAccuracy(text(boxes), text(boxes.slice(0, 1))), 1)
        assert.equal(boxAccuracy('there is none', text(boxes)), 0)
      })
    ))

  it('names are read without regard to case; a threshold may follow iou@; CIDEr names the Python package', () => {
    for (const name of [
      'exact',
      'contains',
      'ANLS',
      'relaxed_accuracy',
      'vqa',
      'multiple-choice',
      'likelihood',
      'IoU@0.5',
      'iou@.75'
    ])
      assert.ok(getOrThrow(metricOf(name)).name)
    assert.equal(getOrThrow(metricOf('IoU')).name, 'iou@0.5')
    assert.throws(() => getOrThrow(metricOf('CIDEr')), /pycocoevalcap/)
    for (const name of ['bleu', 'toString', 'iou@2', '']) assert.throws(() => getOrThrow(metricOf(name)), /the metrics are exact/)
  })
})

describe('statistics of scores', () => {
  it('the bootstrap interval is near that of scipy, equal for equal seeds, and wider for more confidence', () => {
    for (const { scores, interval } of reference.bootstrap) {
      const { mean, low, high } = bootstrapInterval(scores)
      assert.equal(mean, meanOf(scores))
      assert.ok(Math.abs(low - interval[0]) < 0.02 && Math.abs(high - interval[1]) < 0.02, `${[low, high]} and ${interval}`)
      assert.deepEqual(bootstrapInterval(scores, { seed: 3 }), bootstrapInterval(scores, { seed: 3 }))
      assert.notDeepEqual(bootstrapInterval(scores, { seed: 3 }), bootstrapInterval(scores, { seed: 4 }))
      const wide = bootstrapInterval(scores, { confidence: 0.99 })
      assert.ok(wide.low < low && wide.high > high)
    }
    assert.throws(() => bootstrapInterval([1], { confidence: 95 }), RangeError)
  })

  it('the paired test has the p of scipy: exact for scores of 0 and 1 and for few rows, within 0.01 for others', () => {
    for (const { a, b, name, p } of reference.paired) {
      const test = pairedTest(a, b)
      assert.equal(test.name, name)
      assert.ok(Math.abs(test.p - p) < (a.length === 80 ? 0.01 : 1e-9), `${test.p} and ${p}`)
    }
    assert.equal(pairedTest([1, 0], [1, 0]).p, 1)
  })

  it('p is from 0 to 1, and equal for both orders', () =>
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 3 })), { maxLength: 8 }),
        (pairs) => {
          const [a, b] = [pairs.map(([x]) => x / 3), pairs.map(([, y]) => y / 3)]
          const { p } = pairedTest(a, b)
          assert.ok(p > 0 && p <= 1)
          assert.ok(Math.abs(p - pairedTest(b, a).p) < 1e-12)
        }
      )
    ))
})
