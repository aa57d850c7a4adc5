import assert from 'node:assert/strict'
import { collate, disposeBatch } from '../../../../generation/train/data/collate.js'
import type { Sample } from '../../../../generation/train/data/sample.js'
import { v2pePositions } from '../../../../generation/train/data/v2pe-positions.js'
import { sftLoss } from '../../../../generation/train/losses.js'
import { tf } from '../../../../lib/tf.js'
import { visualDeltas, visualPositions } from '../../../../models/internvl/v2pe.js'
import { imageToken, tinyModel } from '../../tiny.js'

const sampleOf = (ids: readonly number[], tiles: number): Sample => ({
  id: String(ids),
  ids: Int32Array.from(ids),
  labels: Int32Array.from(ids, (id, i) => (i > 0 && id !== imageToken ? id : -100)),
  pixels: Float32Array.from({ length: tiles * 3 * 64 }, (_, i) => Math.sin(i)),
  tileSize: { width: 8, height: 8 },
  numPatches: Array<number>(tiles).fill(1)
})
const image = [1, 1, 1, 1]
const samples = [sampleOf([2, ...image, 3, ...image, 4], 2), sampleOf([5, 6], 0)]

describe('v2pePositions', () => {
  it('a fixed delta gives the positions of each sample, padded with zeros', () => {
    const batch = collate(samples, { padId: 0, positions: v2pePositions(1 / 4, imageToken, 0)(7) })
    assert.deepEqual(batch.positionIds, [
      visualPositions([...samples[0]!.ids], imageToken, 1 / 4),
      [0, 1, ...Array<number>(9).fill(0)]
    ])
    disposeBatch(batch)
  })

  it('random deltas are those of V2PE, one for each image, by seed and batch index alone', () => {
    const stepsAt = (seed: number, index: number) => {
      const row = v2pePositions('random', imageToken, seed)(index)!(samples)[0]!
      for (const at of [1, 6]) // within an image they are one apart and the same
        for (let i = at; i < at + 3; i++) assert.equal(row[i + 1]! - row[i]!, row[at]! - row[at - 1]!)
      return [row[1]! - row[0]!, row[6]! - row[5]!]
    }
    const all = Array.from({ length: 60 }, (_, index) => stepsAt(3, index))
    assert.deepEqual(stepsAt(3, 5), all[5])
    assert.deepEqual(new Set(all.flat()), new Set(visualDeltas))
    assert.ok(all.some(([a, b]) => a !== b))
    assert.notDeepEqual(
      all,
      Array.from({ length: 60 }, (_, index) => stepsAt(4, index))
    )
  })

  it('the loss uses these positions; a delta of 1 gives the default positions', () => {
    const model = tinyModel()
    const lossOf = (delta: number): number => {
      const batch = collate(samples, { padId: 0, positions: v2pePositions(delta, imageToken, 0)(0) })
      const loss = tf.tidy(() => sftLoss(() => model)({}, batch, {}).loss.dataSync()[0]!)
      disposeBatch(batch)
      return loss
    }
    const plain = collate(samples, { padId: 0 })
    const known = tf.tidy(() => sftLoss(() => model)({}, plain, {}).loss.dataSync()[0]!)
    disposeBatch(plain)
    assert.equal(plain.positionIds, undefined)
    assert.equal(lossOf(1), known)
    assert.ok(Math.abs(lossOf(1 / 4) - known) > 1e-4)
  })
})
