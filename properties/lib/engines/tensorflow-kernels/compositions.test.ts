import assert from 'node:assert/strict'
import fc from 'fast-check'
import { valueAndGrad } from '../../../../lib/autograd/grad.js'
import { autocast } from '../../../../lib/engines/tensorflow-kernels/compute-type.js'
import { activationNames } from '../../../../lib/nn/activation.js'
import { attend, attendMerged } from '../../../../lib/nn/attention/attention.js'
import { attendCached } from '../../../../lib/nn/attention/cached-attention.js'
import { type KVCacheType, kvCacheTypes, type LayerCache } from '../../../../lib/nn/attention/kv-cache.js'
import { embedding } from '../../../../lib/nn/embedding.js'
import { affine } from '../../../../lib/nn/linear.js'
import { withoutKernels } from '../../../../lib/ops/kernel.js'
import { dequantize, formatOf, quantizationFormats, quantize } from '../../../../lib/quantization/formats.js'
import { tf } from '../../../../lib/tf.js'
import { withTensorflowKernels } from './with-tensorflow-kernels.js'

/** Relative L2 distance of a kernel's result from that of the composition of plain float32 ops. */
const distance = (f: () => tf.Tensor): number =>
  tf.tidy(() => {
    const [kernel, composition] = [f(), withoutKernels(f)]
    assert.deepEqual(kernel.shape, composition.shape)
    const norm = (x: tf.Tensor) => x.square().sum().sqrt().dataSync()[0]!
    return norm(kernel.sub(composition)) / Math.max(norm(composition), 1e-3)
  })

/** bfloat16 has 8 significant bits: inputs and result of a product are rounded by at most 2^-9 of their size; an activation near 0 loses more. */
const tolerance = { float32: 1e-5, bfloat16: 2e-2, float16: 2e-3 } as const
const types = fc.constantFrom('float32', 'bfloat16', 'float16')

const random = <R extends tf.Rank>(shape: tf.ShapeMap[R], seed: number): tf.Tensor<R> =>
  tf.randomNormal<R>(shape, 0, 1, 'float32', seed + 1)

const holds = <T>(arbitrary: fc.Arbitrary<T>, check: (value: T) => void, numRuns = 25): void =>
  fc.assert(
    fc.property(arbitrary, (value) => tf.tidy(() => check(value))),
    { numRuns, endOnFailure: true }
  )

describe('kernels of TensorFlow’s own ops', () => {
  withTensorflowKernels()
  const size = fc.integer({ min: 1, max: 150 })

  it('packed weights of every format dequantize to the same numbers', () =>
    holds(
      fc.record({ N: size, K: size, format: fc.constantFrom(...quantizationFormats), s: fc.nat(1000) }),
      ({ N, K, format, s }) => {
        const weight = quantize(format, random<tf.Rank.R2>([N, K], s))
        assert.equal(
          distance(() => dequantize(weight, K)),
          0
        )
      }
    ))

  it('linear layers: in the type of the weight or the one that is set, with bias and activation', () =>
    holds(
      fc.record({
        M: fc.integer({ min: 1, max: 20 }),
        N: size,
        K: size,
        format: fc.constantFrom('float32', ...quantizationFormats),
        activation: fc.option(fc.constantFrom(...activationNames), { nil: undefined }),
        hasBias: fc.boolean(),
        type: types,
        s: fc.nat(1000)
      }),
      ({ M, N, K, format, activation, hasBias, type, s }) => {
        const [x, w] = [random<tf.Rank.R3>([2, M, K], s), random<tf.Rank.R2>([N, K], s + 1).div<tf.Tensor2D>(Math.sqrt(K))]
        const weight = format === 'float32' ? w : quantize(format, w)
        const bias = hasBias ? random<tf.Rank.R1>([N], s + 2) : undefined
        const error = autocast(type, () => distance(() => affine(x, weight, bias, activation)))
        assert.ok(error <= tolerance[type], `${type}: ${error}`)
        const automatic = distance(() => affine(x, weight, bias, activation))
        const productType = format === 'float32' ? 'float32' : format === 'f16' ? 'float16' : 'bfloat16'
        assert.ok(automatic <= tolerance[productType], `auto: ${automatic}`)
      }
    ))

  it('gradients of linear layers: products in the set type, results in float32', () =>
    holds(
      fc.record({ M: fc.integer({ min: 1, max: 20 }), N: size, K: size, packed: fc.boolean(), type: types, s: fc.nat(1000) }),
      ({ M, N, K, packed, type, s }) => {
        const [x, w] = [random<tf.Rank.R2>([M, K], s), random<tf.Rank.R2>([N, K], s + 1)]
        const [dy, bias] = [random<tf.Rank.R2>([M, N], s + 2), random<tf.Rank.R1>([N], s + 3)]
        const base = packed ? quantize('bf16', w) : undefined
        const loss = (p: { x: tf.Tensor2D; w: tf.Tensor2D; bias: tf.Tensor1D }) =>
          affine(p.x, base ?? p.w, p.bias)
            .mul(dy)
            .sum() as tf.Scalar
        const params = base ? { x, bias } : { x, w, bias }
        for (const name of Object.keys(params) as ('x' | 'bias')[]) {
          const error = autocast(type, () =>
            distance(() => valueAndGrad(loss as (p: typeof params) => tf.Scalar)(params).grads[name]!)
          )
          assert.ok(error <= tolerance[type], `${name} in ${type}: ${error}`)
        }
      }
    ))

  const attentionCases = fc.record({
    B: fc.integer({ min: 1, max: 2 }),
    G: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 3 }),
    L: fc.integer({ min: 1, max: 12 }),
    K: fc.integer({ min: 1, max: 9 }),
    causal: fc.boolean(),
    window: fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined }),
    hasSinks: fc.boolean(),
    padded: fc.boolean(),
    type: types,
    s: fc.nat(1000)
  })

  it('attention: grouped heads, causal and windowed, padding, sinks, merged heads', () =>
    holds(attentionCases, ({ B, G, group, L, K, causal, window, hasSinks, padded, type, s }) => {
      const H = G * group
      const [q, k, v] = [
        random<tf.Rank.R4>([B, H, L, K], s),
        random<tf.Rank.R4>([B, G, L, K], s + 1),
        random<tf.Rank.R4>([B, G, L, K], s + 2)
      ]
      const mask = {
        ...(causal ? { causalFrom: 0, window } : {}),
        ...(padded && L > 1
          ? { padding: tf.concat([tf.fill([B, 1, 1, 1], -1e9), tf.zeros([B, 1, 1, L - 1])], 3) as tf.Tensor4D }
          : {}),
        ...(hasSinks ? { sinks: random<tf.Rank.R1>([H], s + 3) } : {})
      }
      autocast(type, () => {
        const error = distance(() => attend(q, k, v, K ** -0.5, mask))
        assert.ok(error <= 2 * tolerance[type], `${type}: ${error}`)
        const merged = (t: tf.Tensor4D) => t.transpose([0, 2, 1, 3]).reshape<tf.Tensor3D>([B, L, -1])
        if (group === 1)
          assert.ok(distance(() => attendMerged(merged(q), merged(k), merged(v), H, K ** -0.5)) <= 2 * tolerance[type])
      })
    }))

  const steps = fc.record({
    cacheType: fc.constantFrom(...kvCacheTypes),
    B: fc.integer({ min: 1, max: 2 }),
    G: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 2 }),
    K: fc.constantFrom(2, 6, 8, 16),
    window: fc.option(fc.integer({ min: 1, max: 40 }), { nil: undefined }),
    lengths: fc.array(fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 70 })), { minLength: 1, maxLength: 5 }),
    padded: fc.boolean(),
    s: fc.nat(1000)
  })

  it('attention with a cache that grows in place: equal to attention over all positions', () =>
    holds(steps, ({ cacheType, B, G, group, K, window, lengths, padded, s }) => {
      const H = G * group
      const total = lengths.reduce((a, b) => a + b)
      const angles = tf
        .range(0, total)
        .reshape([1, 1, total, 1])
        .mul(tf.ones([1, 1, 1, K]))
      const [cos, sin] = [angles.cos(), angles.sin()]
      const padding = padded
        ? (tf
            .concat([tf.fill([B, 1, 1, 1], -1e9), tf.zeros([B, 1, 1, total])], 3)
            .slice([0, 0, 0, 0], [B, 1, 1, total]) as tf.Tensor4D)
        : undefined
      const run = (cacheType: KVCacheType) => {
        let [cache, at]: [LayerCache | undefined, number] = [undefined, 0]
        const outs = lengths.map((L, i) => {
          const [q, k, v] = [random<tf.Rank.R3>([B, L, H * K], s + 3 * i), random<tf.Rank.R3>([B, L, G * K], s + 3 * i + 1), random<tf.Rank.R3>([B, L, G * K], s + 3 * i + 2)] // biome-ignore format: one line
          const rows = (t: tf.Tensor) => t.slice([0, 0, at, 0], [1, 1, L, K]) as tf.Tensor4D
          const step = attendCached([q, k, v], cache, { numHeads: H, numKeyValueHeads: G, window, cacheType, padding, rope: { cos: rows(cos), sin: rows(sin) } }) // biome-ignore format: one line
          ;[cache, at] = [step.cache, at + L]
          return step.out
        })
        return tf.concat(outs, 1)
      }
      const rows = padded ? tf.concat([tf.zeros([1, 1, 1]), tf.ones([1, total - 1, 1])], 1) : tf.scalar(1) // no key is left for the padding itself
      const error = distance(() => run(cacheType).mul(rows))
      const most = { float32: 1e-5, float16: 4e-3, bfloat16: 3e-2, int8: 3e-2 }[cacheType]
      assert.ok(error <= most, `${cacheType}: ${error}`)
    }))

  it('a cache whose positions another cache has appended to is copied, not overwritten', () => {
    tf.tidy(() => {
      const rope = { cos: tf.ones<tf.Rank.R4>([1, 1, 1, 4]), sin: tf.zeros<tf.Rank.R4>([1, 1, 1, 4]) }
      const options = { numHeads: 1, numKeyValueHeads: 1, cacheType: 'bfloat16', rope } as const
      const x = (s: number) => random<tf.Rank.R3>([1, 1, 4], s)
      const first = attendCached([x(0), x(1), x(2)], undefined, options).cache
      const grown = attendCached([x(3), x(4), x(5)], first, options).cache // room for more
      const left = attendCached([x(6), x(7), x(8)], grown, options)
      const right = attendCached([x(9), x(10), x(11)], grown, options)
      const again = attendCached([x(6), x(7), x(8)], grown, options)
      assert.equal(left.cache.key.shape[2], grown.key.shape[2])
      assert.notEqual(right.cache.buffer, left.cache.buffer)
      assert.deepEqual(again.out.dataSync(), left.out.dataSync())
    })
  })

  it('embeddings: rows of a weight in every format', () =>
    holds(
      fc.record({ V: size, K: size, format: fc.constantFrom(...quantizationFormats), s: fc.nat(1000) }),
      ({ V, K, format, s }) => {
        const weight = quantize(format, random<tf.Rank.R2>([V, K], s))
        assert.equal(formatOf(weight).format, format)
        const ids = tf.tensor2d([[0, V - 1], [V >> 1, s % V]], [2, 2], 'int32') // biome-ignore format: one line
        const lookUp = embedding(V, K).apply({ weight })
        assert.equal(
          distance(() => lookUp(ids)),
          0
        )
      }
    ))

  it('releases every tensor but its results', () => {
    const { binding } = tf.engine().findBackend('tensorflow') as unknown as { binding: { getNumOfTensors(): number } }
    const x = random<tf.Rank.R2>([3, 70], 1)
    const weight = quantize('int6', random<tf.Rank.R2>([5, 70], 2))
    const step = () => affine(x, weight).dispose()
    step() // constants are kept
    const before = [binding.getNumOfTensors(), tf.memory().numTensors]
    for (let i = 0; i < 10; i++) step()
    assert.deepEqual([binding.getNumOfTensors(), tf.memory().numTensors], before)
    tf.dispose([x, formatOf(weight).tensor])
  })
})
