import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { ShapeError } from '../../../../lib/shape.js'
import { tf } from '../../../../lib/tf.js'
import {
  compressedTiles,
  keptIds,
  packTileFeatures,
  quantile,
  scoresOf,
  selectFeatures,
  tokensOfRow
} from '../../../../models/internvl/flash/tile-features.js'
import { check } from '../../../laws/check.js'

const { quantiles } = JSON.parse(readFileSync(new URL('../../../reference/formats/flash.json', import.meta.url), 'utf8')) as {
  readonly quantiles: readonly (readonly [readonly number[], number, number])[]
}
const scores = fc.array(fc.float({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 9 })
const share = fc.double({ min: 0, max: 1, noNaN: true })

describe('compressed tiles', () => {
  it('a quantile is that of torch, bit for bit', () => {
    for (const [values, q, expected] of quantiles) assert.equal(quantile(values, q), expected, `${values} ${q}`)
  })

  it('a tile is compressed exactly if its score is above the quantile and at least the absolute threshold', () =>
    check(fc.tuple(scores, share, share), ([p, relativeThreshold, absoluteThreshold]) => {
      const compressed = compressedTiles(p, { relativeThreshold, absoluteThreshold })
      const least = quantile(p, relativeThreshold)
      assert.deepEqual(
        compressed,
        p.map((x) => x > least && x >= Math.fround(absoluteThreshold))
      )
      assert.ok(!compressedTiles(p, { relativeThreshold: 1, absoluteThreshold: 0 }).includes(true))
    }))

  it('ids and features have the same number of image tokens, in order, for any compressed tiles', () =>
    check(fc.array(fc.boolean(), { minLength: 1, maxLength: 6 }), (compressed) => {
      const [N, D, image, T] = [8, 3, 5, compressed.length]
      const tiles = tf.tidy(() =>
        packTileFeatures(
          tf.range(0, T * N * D).reshape([T, N, D]),
          tf
            .range(0, (T * N * D) / 4)
            .mul<tf.Tensor1D>(-1)
            .reshape([T, N / 4, D]),
          tf.linspace(0, 1, T)
        )
      )
      const ids = [1, ...compressed.flatMap((_, tile) => [...Array<number>(N).fill(image), 10 + tile])]
      const remaining = keptIds(ids, image, N, compressed)
      const features = selectFeatures(tiles, D, compressed)
      assert.equal(tokensOfRow(tiles, D), N)
      assert.equal(scoresOf(tiles).length, T)
      assert.equal(remaining.filter((id) => id === image).length, features.shape[1])
      assert.deepEqual(
        remaining.filter((id) => id !== image),
        ids.filter((id) => id !== image)
      )
      // the features of a tile are its own: those of compressed tiles are below 0 (or its first, -0)
      const rows = features.arraySync()[0]!
      let row = 0
      for (const [tile, isCompressed] of compressed.entries())
        for (let i = 0; i < (isCompressed ? N / 4 : N); i++)
          assert.equal(rows[row++]![1]!, isCompressed ? -((tile * N) / 4 + i) * D - 1 : (tile * N + i) * D + 1)
      tf.dispose([tiles, features])
    }))

  it('a prompt with another number of image tokens is a ShapeError with both numbers', () => {
    assert.throws(() => keptIds([5, 5, 5], 5, 4, [true]), (error: unknown) => error instanceof ShapeError && /3 image tokens.*4 image features/.test(error.message)) // biome-ignore format: one line
  })
})
