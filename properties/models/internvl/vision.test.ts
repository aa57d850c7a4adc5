import assert from 'node:assert/strict'
import fc from 'fast-check'
import { tf } from '../../../lib/tf.js'
import { visionTower } from '../../../models/internvl/vision.js'
import { randomParams, randomTensor, seed } from '../../arbitraries/tensor.js'
import { gridOf, visionConfig } from '../../arbitraries/vision.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'
import { moduleLaws } from '../../laws/module.js'

moduleLaws(
  'vision tower',
  visionConfig,
  (c) => ({
    module: visionTower(c),
    input: [2, 3, gridOf(c).side, gridOf(c).side],
    output: [2, 1 + gridOf(c).patches, c.hiddenSize]
  }),
  (forward, x) => forward(x as tf.Tensor4D).lastHiddenState
)

describe('vision tower', () => {
  const drawn = fc.record({ c: visionConfig, seed })
  const made = (c: typeof visionConfig extends fc.Arbitrary<infer C> ? C : never, seed: number, side = gridOf(c).side) => {
    const module = visionTower(c)
    return { tower: module.apply(randomParams(module, seed)), tile: randomTensor<tf.Tensor4D>([1, 3, side, side], seed) }
  }

  it('hidden states are the embeddings and each layer, and the last, normed or not, is the output', () =>
    check(drawn, ({ c, seed }) => {
      const { tower, tile } = made(c, seed)
      const { lastHiddenState, hiddenStates = [] } = tower(tile, { outputHiddenStates: true })
      assert.equal(hiddenStates.length, c.numHiddenLayers + 1)
      if (c.useMeanPooling) assertClose(hiddenStates.at(-1)!, lastHiddenState, 0)
    }))

  it('tiles of other sizes have as many patches as fit', () =>
    check(fc.tuple(drawn, fc.integer({ min: 1, max: 12 })), ([{ c, seed }, pixels]) => {
      const side = c.patchSize[0] + pixels
      const { tower, tile } = made(c, seed, side)
      assert.equal(tower(tile).lastHiddenState.shape[1], 1 + Math.floor(side / c.patchSize[0]) ** 2)
    }))

  it('patches that the mask token replaces may hold anything; without one, asking for it is an error', () =>
    check(drawn, ({ c, seed }) => {
      const { tower, tile } = made(c, seed)
      const masked = tf.ones<tf.Rank.R2>([1, gridOf(c).patches])
      if (!c.useMaskToken) return assert.throws(() => tower(tile, { masked }), RangeError)
      assertClose(tower(tile.mul(-3), { masked }).lastHiddenState, tower(tile, { masked }).lastHiddenState)
    }))

  it('needs no more memory for what is in between where there are more layers', async () => {
    const c = { ...fc.sample(visionConfig, { seed: 1, numRuns: 1 })[0]! }
    const peak = async (numHiddenLayers: number) => {
      const { tower, tile } = made({ ...c, numHiddenLayers }, 3)
      const before = tf.memory().numBytes
      const { peakBytes } = await tf.profile(() => [tf.tidy(() => tower(tile).lastHiddenState)])
      return peakBytes - before
    }
    assert.equal(await peak(9), await peak(3))
  })

  it('a tile with other than its channels is refused by name', () =>
    check(drawn, ({ c, seed }) => {
      const { tower } = made(c, seed)
      assert.throws(() => tower(tf.zeros([1, 4, 8, 8])), /pixelValues: expected \[\*, 3, \*, \*\], got \[1, 4, 8, 8\]/)
    }))
})
