import assert from 'node:assert/strict'
import fc from 'fast-check'
import { demoLearningRate, demoSteps, demoWeights, splitByLength } from '../../../generation/demo/train-demo.js'
import type { Sample } from '../../../generation/train/data/sample.js'

describe("the demo model's training", () => {
  it('the learning rate rises in 200 steps and decays to 2 %; questions about positions come after the first fifth, most of them before the last', () =>
    fc.assert(
      fc.property(fc.integer({ min: 1000, max: demoSteps }), (steps) => {
        const rate = demoLearningRate(steps)
        const rates = Array.from({ length: steps }, (_, step) => rate(step))
        const top = rates.indexOf(Math.max(...rates))
        assert.ok(Math.abs(top - 199) <= 1 && rates[top]! > 0.9e-3 && rates[top]! <= 1e-3)
        assert.ok(rates.every((r, i) => i === 0 || (i <= top ? r > rates[i - 1]! : r < rates[i - 1]!)))
        assert.ok(Math.abs(rates.at(-1)! / 2e-5 - 1) < 0.01)
        const positions = (share: number) => demoWeights(Math.floor(share * steps), steps).positions
        assert.ok(positions(0) === 0 && positions(0.19) === 0 && positions(0.3) > positions(0.7) && positions(0.7) > 0)
      }),
      { numRuns: 20 }
    ))

  it('splits the samples of a step into two batches with the least padding', () =>
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 2, maxLength: 8 }), (lengths) => {
        const samples = lengths.map((length, i) => ({ id: `${i}`, ids: new Int32Array(length) }) as Sample)
        const cells = (group: readonly Sample[]) => group.length * Math.max(...group.map(({ ids }) => ids.length))
        const [short, long] = splitByLength(samples)
        assert.deepEqual(new Set([...short, ...long]), new Set(samples))
        const sorted = [...short, ...long]
        for (let cut = 1; cut < sorted.length; cut++)
          assert.ok(cells(short) + cells(long) <= cells(sorted.slice(0, cut)) + cells(sorted.slice(cut)))
      })
    ))
})
