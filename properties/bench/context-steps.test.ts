import assert from 'node:assert/strict'
import { demoModel } from '../../generation/checkpoint/load.js'
import { tf } from '../../lib/tf.js'
import { measureContextSteps } from './measure/context-steps.js'
import type { Measured } from './measure/measure.js'
import { summarize } from './report/summary.js'
import { contextShares } from './report/table.js'

describe('decoding after a short and a long prompt', () => {
  const job = { checkpoint: demoModel, precision: 'int8', turns: 2 } as const

  it('takes the steps in turn: eight of ten count, and no tensor is left', async () => {
    const before = tf.memory().numTensors
    const found = await measureContextSteps({ ...job, sizes: [10, 60] })
    assert.deepEqual([found.dtype, found.sizes, found.steps], ['int8', [10, 60], 16])
    for (const seconds of found.seconds) assert.ok(seconds > 0 && seconds < 10)
    assert.equal(tf.memory().numTensors, before)
  })

  it("refuses a prompt longer than the model's positions", async () => {
    const before = tf.memory().numTensors
    await assert.rejects(measureContextSteps({ ...job, sizes: [10, 4090] }), /RangeError: --context 4090: .* this model has 4096/)
    assert.equal(tf.memory().numTensors, before)
  })

  it('the share of the speed comes from steps in turn, and from separate processes for contenders without them', () => {
    const contender = (engine: string, speed: number): Measured => ({
      engine,
      dtype: 'int8',
      samples: { decode_tokens_per_s: [speed] }
    })
    const results = ['native', 'openvino'].flatMap((engine) => [
      summarize([contender(engine, 6)], 'context', 4000),
      summarize([contender(engine, 8)], 'context', 100),
      summarize([contender(engine, 9)], 'tiles', 1)
    ])
    const steps = { engine: 'native', dtype: 'int8', sizes: [100, 4000], steps: 80, seconds: [0.018, 0.02] } as const
    const theirs = 'openvino int8: at 4000 tokens of text 0.75x its speed at 100 (separate processes)'
    const ours =
      'native int8: at 4000 tokens of text 0.90x its speed at 100 (20.0 and 18.0 ms a token, medians of 80 steps each, in turn)'
    assert.deepEqual(contextShares(results, [steps]), [ours, theirs])
    assert.deepEqual(contextShares(results.slice(4), []), [])
  })
})
