import fc from 'fast-check'
import { attend, mergeHeads, paddingMask, splitHeads } from '../../../../lib/nn/attention/attention.js'
import { tf } from '../../../../lib/tf.js'
import { count, randomTensor, seed } from '../../../arbitraries/tensor.js'
import { check } from '../../../laws/check.js'
import { assertClose } from '../../../laws/close.js'
import { layers, unpack } from '../../../reference/layers.js'

const samples = fc.record({
  B: count(2),
  G: count(2),
  share: count(3),
  past: fc.nat(4),
  L: count(6),
  K: count(3),
  causal: fc.boolean(),
  window: fc.option(count(4), { nil: undefined }),
  padding: fc.nat(2),
  sinks: fc.boolean(),
  seed
})
type Draw = typeof samples extends fc.Arbitrary<infer D> ? D : never

const inputs = ({ B, G, share, past, L, K, causal, window, padding, sinks, seed }: Draw, ahead = 0) => {
  const Lk = past + L
  const mask = tf.tensor2d(
    Array.from({ length: B }, () => Array.from({ length: Lk }, (_, i) => Number(i >= Math.min(padding, past)))),
    undefined,
    'int32'
  )
  return {
    q: randomTensor<tf.Tensor4D>([B, G * share, L, K], seed),
    k: randomTensor<tf.Tensor4D>([B, G, Lk, K], seed + 1),
    v: randomTensor<tf.Tensor4D>([B, G, Lk, K], seed + 2),
    masks: {
      ...(causal ? { causalFrom: past + ahead, window } : {}),
      padding: paddingMask(mask),
      ...(sinks ? { sinks: randomTensor<tf.Tensor1D>([G * share], seed + 3) } : {})
    }
  }
}

describe('attention', () => {
  const { q, k, v, scale, causalFrom, window, ...expected } = layers.attention
  const see = { full: {}, causal: { causalFrom }, sliding: { causalFrom, window } }
  for (const [name, maskOptions] of Object.entries(see))
    it(`${name}, with grouped heads, is PyTorch's`, () =>
      tf.tidy(() => {
        const out = attend(unpack<tf.Tensor4D>(q), unpack<tf.Tensor4D>(k), unpack<tf.Tensor4D>(v), scale, maskOptions)
        assertClose(out, unpack(expected[name]), 1e-6)
      }))

  it('attention in blocks equals attention at once', () =>
    check(
      fc.tuple(samples, count(40), fc.nat(3)),
      ([draw, maxScores, ahead]) => {
        const { q, k, v, masks } = inputs(draw, draw.window === undefined ? ahead : 0) // with a window a query may have no key
        assertClose(attend(q, k, v, 0.7, masks, maxScores), attend(q, k, v, 0.7, masks))
      },
      15
    ))

  it('averages values: a constant stays constant, reduced by the weight of a sink', () =>
    check(samples, (draw) => {
      const { q, k, v, masks } = inputs(draw)
      const ones = attend(q, k, tf.onesLike(v), 1, masks)
      if (!draw.sinks) assertClose(ones, tf.onesLike(q))
      else assertClose(ones.less(1).logicalAnd(ones.greater(0)).toFloat(), tf.onesLike(q))
    }))

  it('a sink far below every score changes nothing', () =>
    check(samples, (draw) => {
      const { q, k, v, masks } = inputs({ ...draw, sinks: false })
      const sinks = tf.fill([draw.G * draw.share], -1e4) as tf.Tensor1D
      assertClose(attend(q, k, v, 1, { ...masks, sinks }), attend(q, k, v, 1, masks))
    }))

  it('segments of a packed row attend as in separate rows, for any block size', () =>
    check(fc.tuple(samples, count(4), count(40)), ([{ window, seed, G, share, K }, first, maxScores]) => {
      const [B, L] = [2, 6]
      const q = randomTensor<tf.Tensor4D>([B, G * share, L, K], seed)
      const [k, v] = [1, 2].map((n) => randomTensor<tf.Tensor4D>([B, G, L, K], seed + n)) as [tf.Tensor4D, tf.Tensor4D]
      const segments = tf.tensor2d(
        Array.from({ length: B * L }, (_, i) => (i % L < first ? 1 : 2)),
        [B, L],
        'int32'
      )
      const part = (x: tf.Tensor4D, from: number, to: number) => x.slice([0, 0, from, 0], [-1, -1, to - from, -1])
      const alone = [
        [0, first],
        [first, L]
      ].map(([from, to]) => attend(part(q, from!, to!), part(k, from!, to!), part(v, from!, to!), 0.7, { causalFrom: 0, window }))
      assertClose(attend(q, k, v, 0.7, { causalFrom: 0, window, segments }, maxScores), tf.concat(alone, 2))
    }))

  it('mergeHeads inverts splitHeads', () =>
    check(samples, ({ B, G, L, K, seed }) => {
      const x = randomTensor<tf.Tensor3D>([B, L, G * K], seed)
      assertClose(mergeHeads(splitHeads(x, G)), x, 0)
    }))
})
