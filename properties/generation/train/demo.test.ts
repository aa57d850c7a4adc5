import assert from 'node:assert/strict'
import fc from 'fast-check'
import { byLength, demoPhases, demoRate, demoSteps } from '../../../generation/train/demo.js'
import type { Sample } from '../../../generation/train/sample.js'

describe("the demo model's training", () => {
  it('takes the steps and the rates of the recipe: up in 200 steps, down to 2 %, twice', () => {
    const phases = demoPhases()
    const rate = demoRate(phases)
    const near = (step: number, expected: number) =>
      assert.ok(Math.abs(rate(step) / expected - 1) < 1e-2, `${step}: ${rate(step)}`)
    assert.deepEqual(phases.map(({ steps }) => steps), [5088, 4850]) // biome-ignore format: one line
    near(0, 1e-3 / 200)
    near(199, 1e-3)
    near(5087, 2e-5)
    near(5088, 6e-4 / 200)
    near(5088 + 199, 6e-4)
    near(demoSteps - 1, 1.2e-5)
    assert.equal(demoPhases(1000).reduce((sum, { steps }) => sum + steps, 0), 1000) // biome-ignore format: one line
  })

  it('makes two batches of the samples of a step: all of them, with the fewest places filled up', () =>
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 2, maxLength: 8 }), (lengths) => {
        const samples = lengths.map((length, i) => ({ id: `${i}`, ids: new Int32Array(length) }) as Sample)
        const places = (group: readonly Sample[]) => group.length * Math.max(...group.map(({ ids }) => ids.length))
        const [short, long] = byLength(samples)
        assert.deepEqual(new Set([...short, ...long]), new Set(samples))
        const sorted = [...short, ...long]
        for (let cut = 1; cut < sorted.length; cut++)
          assert.ok(places(short) + places(long) <= places(sorted.slice(0, cut)) + places(sorted.slice(cut)))
      })
    ))
})
