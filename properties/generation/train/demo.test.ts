import assert from 'node:assert/strict'
import { sample } from '../../../generation/demo/scenes.js'
import { demoModel } from '../../../generation/load.js'
import { demoPhases, demoRate, demoSteps, sceneBatch } from '../../../generation/train/demo.js'
import { orThrow } from '../../../lib/fault.js'
import { tf } from '../../../lib/tf.js'
import { loadProcessor } from '../../../processors/processor.js'

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

  it('learns the answers and the token that ends them, and nothing else', async () => {
    const processor = await orThrow(loadProcessor(demoModel))
    const rows = Array.from({ length: 6 }, (_, i) => sample(5, i))
    const batch = await sceneBatch(processor, rows)
    for (const [i, labels] of batch.labels.arraySync().entries())
      assert.equal(processor.decode(labels.filter((id) => id !== -100)), `${rows[i]!.messages.at(-1)!.content}<|im_end|>`)
    tf.dispose(batch as unknown as tf.TensorContainer)
  })
})
