import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { module } from '../../../../lib/module.js'
import { buildParams, disposeParams } from '../../../../lib/params.js'
import { tf } from '../../../../lib/tf.js'
import type { InternVLConfig } from '../../../../models/config/model-config.js'
import { flashRouter } from '../../../../models/internvl/flash/router.js'

const [D, hiddenSize, T, L] = [16, 6, 3, 16] as const
const expected = JSON.parse(readFileSync(new URL('../../../reference/formats/flash.json', import.meta.url), 'utf8')) as {
  readonly scores: readonly number[]
  readonly quarter: number[][][]
}

/** The formula of `make_flash.py`: a tensor by its name. */
const formula = (name: string, shape: readonly number[]): tf.Tensor => {
  const seed = [...name].reduce((n, c) => n + c.charCodeAt(0), 0)
  const size = shape.reduce((a, b) => a * b, 1)
  const fanIn = shape.length === 2 && !name.includes('query_token') ? shape[1]! : 1
  const gain = name.includes('norm') && name.endsWith('weight') ? 1 : 0
  const value = (_: unknown, i: number) =>
    Math.fround((Math.sin(1.7 * i + 0.3 * seed) / Math.sqrt(fanIn)) * (fanIn > 1 ? 2 : 0.5)) + gain
  return tf.tensor(Float32Array.from({ length: size }, value), [...shape])
}

const config = {
  visionConfig: { hiddenSize: D },
  textConfig: { hiddenSize },
  downsampleRatio: 0.5
} as unknown as InternVLConfig

describe('the router of InternVL3.5-Flash', () => {
  it('scores tiles and projects compressed tiles as PyTorch does', () => {
    const router = module(flashRouter(config), (self) => {
      const score = (patches: tf.Tensor3D) => self.gating(self.pooling_before_gating(patches))
      return Object.assign(score, { quarter: self.mlp2 })
    })
    const params = buildParams(router, (path, { shape }) => formula(path, shape))
    const bound = router.apply(params as Parameters<typeof router.apply>[0])
    const patches = tf.tidy(() => formula('patches', [T, L, D]).mul<tf.Tensor3D>(2))
    const folded = formula('folded', [T, 1, 16 * D]) as tf.Tensor3D
    const [scores, quarter] = [bound(patches), bound.quarter(folded)]
    for (const [i, score] of scores.arraySync().entries())
      assert.ok(Math.abs(score - expected.scores[i]!) < 2e-6, `${i}: ${score}`)
    const distances = quarter.arraySync().flat(2).map((x, i) => Math.abs(x - expected.quarter.flat(2)[i]!)) // biome-ignore format: one line
    assert.ok(Math.max(...distances) < 5e-5, `${Math.max(...distances)}`)
    disposeParams(params)
    tf.dispose([patches, folded, scores, quarter])
  })
})
