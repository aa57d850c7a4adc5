import assert from 'node:assert/strict'
import { tf } from '../../lib/tf.js'
import { growthOf, linesOf, type Part, type SoakSample, soak } from './soak.js'

describe('the soak', function () {
  this.timeout(180_000)

  it('leaves no tensor behind after generations, chats, streams left early and loads', async () => {
    const before = tf.memory().numTensors
    const sizes = { generations: 20, chats: 8, streams: 16, loads: 3 }
    const samples = await soak({ seed: 1, ...sizes, samples: 4 })
    assert.equal(tf.memory().numTensors, before)
    for (const part of Object.keys(sizes) as Part[]) {
      const tensors = samples.filter((one) => one.part === part).map((one) => one.tensors)
      assert.equal(new Set(tensors).size, 1, `${part}: ${tensors}`)
    }
  })

  it('measures growth along a line through the samples after the first tenth', () => {
    const sample = (done: number, tensors: number, residentMegabytes: number): SoakSample => ({ part: 'chats', done, tensors, tensorMegabytes: 0, residentMegabytes }) // biome-ignore format: one line
    const growing = Array.from({ length: 10 }, (_, i) => sample((i + 1) / 10, i, 100 + 10 * (i + 1)))
    const growth = growthOf([sample(0.05, 0, 1), ...growing], 'chats')!
    assert.deepEqual([growth.tensors, Math.round(growth.residentMegabytes)], [8, 80])
    assert.equal(growthOf(growing, 'loads'), undefined)
    assert.deepEqual(linesOf(growing.slice(0, 2), ({ tensors }) => tensors, String)[0]?.points, [[10, 0], [20, 1]]) // biome-ignore format: one line
  })
})
