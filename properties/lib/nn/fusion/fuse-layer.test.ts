import assert from 'node:assert/strict'
import { module } from '../../../../lib/module.js'
import { type AttentionContext, selfAttention } from '../../../../lib/nn/attention/self-attention.js'
import { type DecoderLayer, type FeedForward, fuseLayer } from '../../../../lib/nn/fusion/fuse-layer.js'
import { gatedLinearUnit } from '../../../../lib/nn/gated-linear-unit.js'
import { linear } from '../../../../lib/nn/linear.js'
import { rmsNorm } from '../../../../lib/nn/norm.js'
import { fusible } from '../../../../lib/nn/residual.js'
import { ropeFrequencies, ropeTables } from '../../../../lib/nn/rope.js'
import { withoutKernels } from '../../../../lib/ops/kernel.js'
import { tf } from '../../../../lib/tf.js'
import { randomParams, randomTensor } from '../../../arbitraries/tensor.js'
import { assertClose } from '../../../laws/close.js'

const [D, H, K] = [8, 2, 4]

const children = {
  norm: rmsNorm(D, 1e-6),
  attention: module(
    { q_proj: linear(D, H * K), k_proj: linear(D, H * K), v_proj: linear(D, H * K), o_proj: linear(H * K, D) },
    (self) => selfAttention({ projections: self, numHeads: H, numKeyValueHeads: H })
  ),
  norm2: rmsNorm(D, 1e-6),
  mlp: module({ gate_proj: linear(D, 6), up_proj: linear(D, 6), down_proj: linear(6, D) }, (self) =>
    gatedLinearUnit('silu', self)
  ),
  plain: module(
    { fc: linear(D, D) },
    (self): FeedForward =>
      (x) =>
        self.fc(x)
  )
}

/** A layer with the given feed-forward part; `h` are the states after attention. */
const layerOf = (
  feedForward: (
    h: tf.Tensor3D,
    self: {
      readonly norm: (x: tf.Tensor3D) => tf.Tensor3D
      readonly norm2: (x: tf.Tensor3D) => tf.Tensor3D
      readonly mlp: (x: tf.Tensor3D) => tf.Tensor3D
      readonly plain: FeedForward
    }
  ) => tf.Tensor3D
) =>
  module(
    children,
    (self): DecoderLayer =>
      (x, context) => {
        const attention = self.attention(self.norm(x), context)
        return { hidden: feedForward(x.add(attention.hidden), self), cache: attention.cache }
      }
  )

const context = (length: number): AttentionContext => ({
  rope: ropeTables(ropeFrequencies({ ropeType: 'default', ropeTheta: 100 }, K, 64, 64), [[...Array(length).keys()]]),
  padding: undefined,
  segments: undefined,
  cache: undefined
})

/** Asserts that the layer equals its own forward, as written; returns whether all of the layer is fusible. */
const isFused = (layer: ReturnType<typeof layerOf>): boolean =>
  tf.tidy(() => {
    const params = randomParams(layer, 3)
    const x = randomTensor<tf.Tensor3D>([1, 5, D], 4)
    const fused = fuseLayer(layer).apply(params)
    const expected = withoutKernels(() => layer.apply(params)(x, context(5)))
    const { hidden, cache } = fused(x, context(5))
    assertClose(hidden, expected.hidden)
    assertClose(cache.key.slice([0, 0, 0, 0], [1, H, 5, K]), expected.cache.key)
    return fused[fusible] !== undefined
  })

describe('fuseLayer', () => {
  it('recognises a pre-norm layer by its forward, with any names of its parts', () =>
    assert.equal(isFused(layerOf((h, self) => h.add(self.mlp(self.norm2(h))))), true))

  it('leaves a branch without a description as written', () =>
    assert.equal(isFused(layerOf((h, self) => h.add(self.plain(self.norm2(h)) as tf.Tensor3D))), false))

  it('runs any other forward as written', () => {
    const others: readonly Parameters<typeof layerOf>[0][] = [
      (h, self) => h.add(self.mlp(h)), // no norm
      (h, self) => self.norm2(h.add(self.mlp(h))), // post-norm
      (h, self) => h.add(self.mlp(self.norm2(h)).mul(0.5)), // scaled branch
      (h, self) => h.add(self.mlp(self.norm2(h))).add(self.mlp(self.norm(h))), // two branches
      (h, self) => h.add(self.mlp(self.norm2(self.norm(h)))), // two norms
      (h, self) => (h.shape[1] > 3 ? h : h.add(self.mlp(self.norm2(h)))) // depends on a shape
    ]
    for (const [i, feedForward] of others.entries()) assert.equal(isFused(layerOf(feedForward)), false, `forward ${i}`)
  })
})
