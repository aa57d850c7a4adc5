import assert from 'node:assert/strict'
import fc from 'fast-check'
import { layerNorm } from '../../../lib/nn/norm.js'
import { tf } from '../../../lib/tf.js'
import { visionTower } from '../../../models/internvl/vision.js'
import { randomParams, randomTensor, seed } from '../../arbitraries/tensor.js'
import { gridOf, visionConfig } from '../../arbitraries/vision-tower-config.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'
import { moduleLaws } from '../../laws/module-laws.js'

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
  const samples = fc.record({ c: visionConfig, seed })
  const made = (c: typeof visionConfig extends fc.Arbitrary<infer C> ? C : never, seed: number, side = gridOf(c).side) => {
    const module = visionTower(c)
    const params = randomParams(module, seed)
    return { params, tower: module.apply(params), tile: randomTensor<tf.Tensor4D>([1, 3, side, side], seed) }
  }

  it('hidden states are the embeddings and each layer; the output is the last, under a layer norm unless pooling is by mean', () =>
    check(
      samples,
      ({ c, seed }) => {
        const { params, tower, tile } = made(c, seed)
        const { lastHiddenState, hiddenStates = [] } = tower(tile, { outputHiddenStates: true })
        assert.equal(hiddenStates.length, c.numHiddenLayers + 1)
        const last = hiddenStates.at(-1)!
        const { weight, bias } = params.layernorm as { readonly weight: tf.Tensor1D; readonly bias: tf.Tensor1D }
        const norm = layerNorm(c.hiddenSize, c.layerNormEps)
        assertClose(lastHiddenState, c.useMeanPooling ? last : norm.apply({ weight, bias })(last), 0)
      },
      20
    ))

  it('tiles of other sizes have as many patches as fit', () =>
    check(fc.tuple(samples, fc.integer({ min: 1, max: 12 })), ([{ c, seed }, pixels]) => {
      const side = c.patchSize[0] + pixels
      const { tower, tile } = made(c, seed, side)
      assert.equal(tower(tile).lastHiddenState.shape[1], 1 + Math.floor(side / c.patchSize[0]) ** 2)
    }))

  it('masked patches do not influence the output; masking without a mask token is an error', () =>
    check(samples, ({ c, seed }) => {
      const { tower, tile } = made(c, seed)
      const masked = tf.ones<tf.Rank.R2>([1, gridOf(c).patches])
      if (!c.useMaskToken) return assert.throws(() => tower(tile, { masked }), RangeError)
      assertClose(tower(tile.mul(-3), { masked }).lastHiddenState, tower(tile, { masked }).lastHiddenState)
    }))

  it('needs no more memory for intermediate states with more layers', async () => {
    const c = { ...fc.sample(visionConfig, { seed: 1, numRuns: 1 })[0]! }
    const peak = async (numHiddenLayers: number) => {
      const { tower, tile } = made({ ...c, numHiddenLayers }, 3)
      const before = tf.memory().numBytes
      const { peakBytes } = await tf.profile(() => [tf.tidy(() => tower(tile).lastHiddenState)])
      return peakBytes - before
    }
    assert.equal(await peak(9), await peak(3))
  })

  it('a tile with a wrong number of channels is a ShapeError that names the argument', () =>
    check(samples, ({ c, seed }) => {
      const { tower } = made(c, seed)
      assert.throws(() => tower(tf.zeros([1, 4, 8, 8])), /pixelValues: expected \[\*, 3, \*, \*\], got \[1, 4, 8, 8\]/)
    }))
})
