import assert from 'node:assert/strict'
import fc from 'fast-check'
import { getOrThrow } from '../../../lib/error.js'
import type { tf } from '../../../lib/tf.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { pixelShuffle, projector } from '../../../models/internvl/projector.js'
import { count, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { moduleLaws } from '../../laws/module-laws.js'

moduleLaws(
  'projector',
  fc.record({ vision: count(4), text: count(5), tokens: count(3) }),
  ({ vision, text, tokens }) => {
    const json = {
      vision_config: { hidden_size: vision, num_attention_heads: 1 },
      text_config: { hidden_size: text, num_attention_heads: 1, num_key_value_heads: 1 }
    }
    const module = projector(getOrThrow(parseConfig({ model_type: 'internvl', ...json })))
    return { module, input: [2, tokens, 4 * vision], output: [2, tokens, text] }
  },
  (forward, x) => forward(x as tf.Tensor3D)
)

describe('pixelShuffle', () => {
  const grid = fc.record({ h: count(3), w: count(3), s: count(3), C: count(2), seed })
  const at = (x: tf.Tensor4D) => {
    const values = x.arraySync()
    return (i: number, j: number, c: number) => values[0]![i]![j]![c]
  }

  it('a token is its s × s patches, row by row; v1 transposes the grid', () =>
    check(grid, ({ h, w, s, C, seed }) => {
      const x = randomTensor<tf.Tensor4D>([1, h * s, w * s, C], seed)
      const [from, v1, v2] = [at(x), at(pixelShuffle(x, s, 'v1')), at(pixelShuffle(x, s, 'v2'))]
      for (let i = 0; i < h * s; i++)
        for (let j = 0; j < w * s; j++)
          for (let c = 0; c < C; c++) {
            const [row, column] = [Math.floor(i / s), Math.floor(j / s)]
            const channel = ((i % s) * s + (j % s)) * C + c
            assert.equal(v2(row, column, channel), from(i, j, c))
            assert.equal(v1(column, row, channel), from(i, j, c))
          }
    }))

  it('rejects a grid of patches that is not divisible, and names the size', () => {
    check(seed, (seed) => {
      assert.throws(() => pixelShuffle(randomTensor([1, 3, 4, 1], seed), 2), /3 x 4 patches are not divisible by 2/)
    })
  })
})
