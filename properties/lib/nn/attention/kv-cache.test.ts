import assert from 'node:assert/strict'
import fc from 'fast-check'
import { valueAndGrad } from '../../../../lib/autograd/grad.js'
import { attend, mergeHeads, splitHeads } from '../../../../lib/nn/attention/attention.js'
import { attendCached } from '../../../../lib/nn/attention/cached-attention.js'
import {
  cropCache,
  type KVCacheType,
  kvCacheTypes,
  type LayerCache,
  layerCache,
  usedKeys
} from '../../../../lib/nn/attention/kv-cache.js'
import { hasKernel, usesTensorflowOps, withoutKernels } from '../../../../lib/ops/kernel.js'
import { dequantizePacked, formatOf, quantize } from '../../../../lib/quantization/formats.js'
import { tf } from '../../../../lib/tf.js'
import { assertClose } from '../../../laws/close.js'

/** Keys or values `[B, L, G·K]`, every head of a position rounded as a cache of the type rounds its rows. */
const rounded = (x: tf.Tensor3D, K: number, type: KVCacheType): tf.Tensor3D => {
  if (type === 'float32') return x
  const name = { bfloat16: 'bf16', float16: 'f16', int8: 'int8' } as const
  const { format, tensor } = formatOf(quantize(name[type], x.reshape([-1, K])))
  assert.ok(format !== 'float32')
  return dequantizePacked(format, tensor, K).reshape(x.shape)
}

/** The type in which a cache of the requested type is kept: TensorFlow's ops write no int8, the compiled kernels no float16. */
const keptType = (type: KVCacheType): KVCacheType => {
  if (usesTensorflowOps()) return type === 'int8' ? 'bfloat16' : type
  return type === 'float16' ? 'float32' : type
}

/**
 * Largest error of attention over a cache. The compiled kernels sum in float32; TensorFlow's ops round queries and probabilities to the
 * type of a 16-bit cache too, each by at most 2^-9 of a score of up to 10 or a sum of up to 4.
 */
const tolerance = (type: KVCacheType): number => (type !== 'float32' && usesTensorflowOps() ? 0.05 : 1e-4)

const heads = (B: number, L: number, N: number, seed: number) => tf.randomNormal<tf.Rank.R3>([B, L, N], 0, 1, 'float32', seed + 1)

describe('KV cache', () => {
  const cases = fc.record({
    type: fc.constantFrom(...kvCacheTypes),
    B: fc.integer({ min: 1, max: 2 }),
    G: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 9 }),
    K: fc.oneof(
      fc.constantFrom(16, 48, 64, 80, 128),
      fc.integer({ min: 1, max: 70 }).map((half) => 2 * half)
    ), // of whole vectors, and any
    lengths: fc.array(fc.oneof(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 150 })), { minLength: 1, maxLength: 4 }),
    s: fc.nat(1000)
  })

  it('attention with a packed cache is attention over the rounded keys and values, and memory is that of the type', function () {
    if (!hasKernel('CachedAttention')) return this.skip() // packed caches need the compiled kernels
    fc.assert(
      fc.property(cases, ({ type: requested, B, G, group, K, lengths, s }) => {
        const type = keptType(requested)
        tf.tidy(() => {
          const rope = { cos: tf.ones<tf.Rank.R4>([1, 1, 1, K]), sin: tf.zeros<tf.Rank.R4>([1, 1, 1, K]) }
          const options = { numHeads: G * group, numKeyValueHeads: G, cacheType: requested }
          let cache: LayerCache | undefined
          let [keys, values]: tf.Tensor3D[] = []
          for (const [i, L] of lengths.entries()) {
            const q = heads(B, L, G * group * K, s + 10 * i)
            const [k, v] = [heads(B, L, G * K, s + 10 * i + 1), heads(B, L, G * K, s + 10 * i + 2)]
            const tables = { cos: rope.cos.tile([1, 1, L, 1]), sin: rope.sin.tile([1, 1, L, 1]) } as typeof rope
            const step = attendCached([q, k, v], cache, { ...options, rope: tables })
            const [newKeys, newValues] = [rounded(k, K, type), rounded(v, K, type)]
            const past = cache?.length ?? 0
            keys = keys ? tf.concat([keys, newKeys], 1) : newKeys
            values = values ? tf.concat([values, newValues], 1) : newValues
            const expected = mergeHeads(
              attend(splitHeads(q, G * group), splitHeads(keys, G), splitHeads(values, G), K ** -0.5, { causalFrom: past })
            )
            const error = step.out.sub(expected).abs().max().dataSync()[0]!
            assert.ok(error < tolerance(type), `${type}: error ${error} at step ${i}`)
            cache = step.cache
          }
          assert.equal(cache!.type, type)
          assert.equal(cache!.headDim, K)
          const bytes = (cache!.key.size * 4) / (B * G * cache!.value.shape[2])
          const blocks = Math.ceil(K / 64)
          assert.equal(bytes, { float32: 4 * K, bfloat16: 2 * K, float16: 2 * K, int8: blocks * 68 }[type])
        })
      }),
      { numRuns: 60 }
    )
  })

  it('without `useCache` the result and the weights are the same, and no path returns a cache: with kernels, without, and with a gradient', () =>
    fc.assert(
      fc.property(
        fc.record({ L: fc.integer({ min: 1, max: 20 }), G: fc.integer({ min: 1, max: 2 }), s: fc.nat(1000) }),
        ({ L, G, s }) =>
          tf.tidy(() => {
            const K = 8
            const rope = { cos: tf.ones<tf.Rank.R4>([1, 1, L, K]), sin: tf.zeros<tf.Rank.R4>([1, 1, L, K]) }
            const [q, k, v] = [heads(2, L, 2 * G * K, s), heads(2, L, G * K, s + 1), heads(2, L, G * K, s + 2)] as const
            for (const mapWeights of [undefined, (weights: tf.Tensor4D) => weights]) {
              const options = { numHeads: 2 * G, numKeyValueHeads: G, rope, mapWeights }
              const expected = attendCached([q, k, v], undefined, options)
              const run = (query: tf.Tensor3D) => attendCached([query, k, v], undefined, { ...options, useCache: false })
              const recorded: ReturnType<typeof run>[] = []
              const loss = (query: tf.Tensor3D) => {
                recorded.push(run(query))
                return recorded[0]!.out.sum() as tf.Scalar
              }
              valueAndGrad(loss)(q)
              for (const { out, cache, weights } of [run(q), withoutKernels(() => run(q))]) {
                assert.equal(cache, undefined)
                assertClose(out, expected.out, 1e-5)
                if (mapWeights) assertClose(weights!, expected.weights!, 1e-5)
              }
              assert.equal(recorded[0]!.cache, undefined)
            }
          })
      ),
      { numRuns: 20 }
    ))

  it('a cache made of the tensors of another has its positions, all by default, in every type', function () {
    if (!hasKernel('CachedAttention')) return this.skip() // packed caches need the compiled kernels
    tf.tidy(() => {
      for (const K of [8, 64])
        for (const cacheType of kvCacheTypes) {
          const L = 10
          const rope = { cos: tf.ones<tf.Rank.R4>([1, 1, L, K]), sin: tf.zeros<tf.Rank.R4>([1, 1, L, K]) }
          const options = { numHeads: 1, numKeyValueHeads: 1, rope, cacheType }
          const { cache } = attendCached([heads(1, L, K, 1), heads(1, L, K, 2), heads(1, L, K, 3)], undefined, options)
          const { type, headDim } = cache
          const copy = layerCache(cache.key, cache.value, undefined, { type, headDim })
          assert.equal(copy.length, L)
          assertClose(usedKeys(copy), usedKeys(cache), 0)
        }
    })
  })

  it('a step that needs the composition continues a packed cache in float32', function () {
    if (!hasKernel('CachedAttention')) return this.skip() // packed caches need the compiled kernels
    tf.tidy(() => {
      const K = 64
      const tables = (L: number) => ({ cos: tf.ones<tf.Rank.R4>([1, 1, L, K]), sin: tf.zeros<tf.Rank.R4>([1, 1, L, K]) })
      const qkv = (L: number, s: number) => [heads(1, L, 2 * K, s), heads(1, L, K, s + 1), heads(1, L, K, s + 2)] as const
      const options = { numHeads: 2, numKeyValueHeads: 1 }
      for (const cacheType of kvCacheTypes) {
        const first = attendCached(qkv(5, 1), undefined, { ...options, cacheType, rope: tables(5) }).cache
        const fused = attendCached(qkv(2, 7), cropCache(first, 4), { ...options, rope: tables(2) })
        const composed = withoutKernels(() => attendCached(qkv(2, 7), cropCache(first, 4), { ...options, rope: tables(2) }))
        assert.ok(fused.out.sub(composed.out).abs().max().dataSync()[0]! < (cacheType === 'int8' ? 0.03 : 0.01))
        assert.equal(composed.cache.type, 'float32')
        assert.equal(composed.cache.length, 6)
      }
    })
  })
})
