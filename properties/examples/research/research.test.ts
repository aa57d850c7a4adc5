import assert from 'node:assert/strict'
import { type InternVLCheckpoint, load, tf } from '../../../generation/root.js'
import { shapes } from '../demo-files.js'
import { patchLayers } from './activation-patching.js'
import { gradientWeightedAttention } from './gradient-weighted-attention.js'
import { ablateHeads } from './head-ablation.js'
import { probeColours } from './linear-probe.js'
import { logitLens } from './logit-lens.js'
import { firstToken, recoloured } from './scene.js'
import { steer } from './steering-vector.js'

const [green, red, blue] = [
  [40, 160, 70],
  [214, 40, 40],
  [40, 80, 210]
] as const

describe('recipes of research', () => {
  let internvl: InternVLCheckpoint
  let tensors = 0
  before(async () => {
    internvl = await load()
    tensors = tf.memory().numTensors
  })
  afterEach(() => assert.equal(tf.memory().numTensors, tensors, 'a recipe disposes every tensor'))
  after(() => internvl.dispose())
  const idOf = (word: string): number => firstToken(internvl, word)

  it('logit lens: the answer appears in the last layers', async () => {
    const probabilities = await logitLens(internvl, shapes, idOf('Green'))
    assert.ok(probabilities[0]! < 0.1 && probabilities.at(-1)! > 0.9)
  })

  it('activation patching: the colour is restored at the image tokens first, at the last token in the end', async () => {
    const other = await recoloured(shapes, green, red)
    const { clean, corrupted, atImage, atLast } = await patchLayers(internvl, shapes, other, idOf('Green'))
    assert.ok(clean > 0.9 && corrupted < 0.1)
    assert.ok(atImage[0]! > 0.9 && atImage.at(-1)! < 0.1 && atLast[0]! < 0.1 && atLast.at(-1)! > 0.9)
  })

  it('ablating heads: one head of the first layer is needed, none of the third, and those of the last layer together', async () => {
    const { heads, layers } = await ablateHeads(internvl, shapes, idOf('Green'))
    assert.equal(heads[0]!.filter((probability) => probability < 0.1).length, 1)
    assert.ok(heads[2]!.every((probability) => probability > 0.9) && layers[2]! > 0.9)
    assert.ok(layers.at(-1)! < 0.5)
  })

  it('a steering vector towards blue turns the answer about a green circle blue', async () => {
    const others = [
      [214, 40, 40],
      [245, 205, 40],
      [130, 60, 170],
      [25, 25, 25]
    ]
    const from = await Promise.all(others.map((colour) => recoloured(shapes, green, colour)))
    const to = [await recoloured(shapes, green, blue)]
    const { before, after } = await steer(internvl, { from, to, image: shapes }, { layer: 3, strength: 3 })
    assert.ok(before[idOf('Blue')]! < 0.01 && after[idOf('Blue')]! > 0.7)
  })

  it('linear probes read the colour better from later layers', async () => {
    const accuracies = await probeColours(internvl)
    assert.ok(accuracies[0]! < 0.4 && accuracies.at(-1)! > 0.9)
  })

  it('gradient-weighted attention of the colour lies on the circle', async () => {
    const { side, map, weights } = await gradientWeightedAttention(internvl, shapes, idOf('Green'), 3)
    const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
    const inQuarter = (values: readonly number[]): number =>
      sum(values.filter((_, i) => i % side < side / 2 && i < (side * side) / 2)) / sum(values)
    assert.ok(inQuarter(map) > 0.9 && inQuarter(map) > inQuarter(weights))
  })
})
