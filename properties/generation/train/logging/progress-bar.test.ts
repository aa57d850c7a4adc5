import assert from 'node:assert/strict'
import fc from 'fast-check'
import { averagedSteps, barLine, meanOfLast, progressCallback } from '../../../../generation/train/logging/progress-bar.js'

const eraseLine = '\u001b[K'
const tokens = new RegExp(`${eraseLine.replace('[', '\\[')}|[\\s\\S]`, 'g')

/** The lines on a terminal after the given writes; understands `\r`, `\n` and "erase to the end of the line". */
const screenOf = (text: string): readonly string[] => {
  const lines = ['']
  let column = 0
  for (const [token] of text.matchAll(tokens)) {
    const line = lines.at(-1)!
    if (token === '\n') column = lines.push('') * 0
    else if (token === '\r') column = 0
    else if (token === eraseLine) lines[lines.length - 1] = line.slice(0, column)
    else lines[lines.length - 1] = line.slice(0, column) + token + line.slice(++column)
  }
  return lines
}

const recorded = (steps: number, terminal: { readonly isTTY?: boolean; readonly columns?: number }, logSteps = 1) => {
  let text = ''
  const write = (piece: string) => {
    text += piece
  }
  const progress = progressCallback({ steps: () => steps, logSteps, stream: { ...terminal, write } })
  return { progress, screen: () => screenOf(text) }
}
const report = (step: number, loss: number, seconds = 1) => ({
  step,
  loss,
  gradNorm: 1,
  learningRate: 1e-5,
  tokens: 100,
  seconds
})

describe('progress of training', () => {
  it('shows the mean loss and the time left of the last ten steps', () => {
    const { progress, screen } = recorded(35, {})
    const losses = Array.from({ length: 25 }, (_, i) => (i < 8 ? 10 - i : 1.27))
    for (const [i, loss] of losses.entries()) progress.onStepEnd!(report(i + 1, loss, i === 0 ? 500 : 2))
    assert.equal(screen().at(-2), 'step 25: loss 1.2700, 20 s left, lr 1.00e-5, 50 tokens/s')
    assert.match(screen()[1]!, /^step 2: loss 9.5000/)
  })

  it('the mean of the last steps has no bias: equal numbers give this number, from the first on', () =>
    fc.assert(
      fc.property(fc.integer({ min: -9, max: 9 }), fc.array(fc.integer({ min: -99, max: 99 })), (x, before) => {
        const mean = meanOfLast()
        for (const y of before) mean(y)
        const means = Array.from({ length: averagedSteps }, () => mean(x))
        assert.ok(Math.abs(means.at(-1)! - x) < 1e-9)
        if (before.length === 0) assert.deepEqual(means, Array(averagedSteps).fill(x))
      })
    ))

  it('a bar fits into its columns, and at 60 columns shows the time left', () =>
    fc.assert(
      fc.property(fc.nat(99_999), fc.nat(99_999), fc.integer({ min: 10, max: 200 }), (step, steps, columns) => {
        const line = barLine(step, steps, ['loss 12.3456', '12 h 34 min left', 'lr 1.00e-5', '1234 tokens/s'], columns)
        assert.ok(line.length <= columns, line)
        if (columns >= 59) assert.match(line, /12 h 34 min left/)
      })
    ))

  for (const columns of [60, 80, 200])
    it(`on a terminal of ${columns} columns printed lines stay whole, and the last line is the bar`, () => {
      const { progress, screen } = recorded(3, { isTTY: true, columns })
      progress.onTrainBegin!(0)
      progress.onStepEnd!(report(1, 2))
      progress.onSave!(1, 'out/step-0000001')
      progress.print('stopping after this step; press Ctrl-C again to stop immediately')
      progress.onStepEnd!(report(2, 2))
      progress.onEvaluate!(2, { loss: 1 })
      progress.onStepEnd!(report(3, 2))
      progress.onTrainEnd!()
      progress.print('saved out')
      const [saved, stopping, evaluated, bar, last, ...rest] = screen()
      assert.deepEqual([saved, last, rest], ['step 1: saved out/step-0000001', 'saved out', ['']])
      assert.equal(stopping, 'stopping after this step; press Ctrl-C again to stop immediately')
      assert.equal(evaluated, 'step 2: validation: loss 1.000')
      assert.match(bar!, /^█+ 3\/3 loss 2\.0000, 0 s left/)
      assert.ok(bar!.length < columns)
    })
})
