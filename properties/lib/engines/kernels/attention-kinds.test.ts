import assert from 'node:assert/strict'
import fc from 'fast-check'
import { selectEngine } from '../../../../lib/engines/index.js'
import { kernelsInUse } from '../../../../lib/engines/kernels/register.js'
import { gemmKindsFor, withKernelSettings } from '../../../../lib/engines/kernels/settings.js'
import { attendMerged } from '../../../../lib/nn/attention/attention.js'
import { runKernel } from '../../../../lib/ops/kernel.js'
import { tf } from '../../../../lib/tf.js'

describe('arithmetic of attention of many queries', () => {
  before(async function () {
    if ((await selectEngine()).name !== 'native' || kernelsInUse().length === 0) this.skip()
  })

  const random = <R extends tf.Rank>(shape: tf.ShapeMap[R], seed: number): tf.Tensor<R> =>
    tf.randomNormal<R>(shape, 0, 1, 'float32', seed + 1) // TensorFlow replaces seed 0 by a random seed

  /** The largest L2 error of a kind, relative to attention of the values' sizes: bfloat16 and int8 have 8 bits of precision. */
  const tolerance = { float32: 0, amxBfloat16: 4e-3, int8: 8e-3 } as const

  const sizes = fc.record({
    G: fc.integer({ min: 1, max: 2 }),
    group: fc.integer({ min: 1, max: 2 }),
    Lq: fc.integer({ min: 130, max: 300 }),
    past: fc.integer({ min: 0, max: 300 }),
    K: fc.integer({ min: 1, max: 80 }),
    causal: fc.boolean(),
    window: fc.constantFrom(0, 1, 40, 400),
    hidden: fc.integer({ min: 0, max: 40 }),
    sinks: fc.boolean(),
    s: fc.nat()
  })

  it('every kind is within its rounding of float32: grouped queries, causal from any past, windows, padding, sinks', () =>
    fc.assert(
      fc.property(sizes, ({ G, group, Lq, past, K, causal, window, hidden, sinks, s }) =>
        tf.tidy(() => {
          const [H, Lk] = [G * group, past + Lq]
          const columns = Array.from({ length: Lk }, (_, j) => (j < Math.min(hidden, past) ? -1e9 : 0))
          const inputs = {
            q: random([1, H, Lq, K], s),
            k: random([1, G, Lk, K], s + 1),
            v: random([1, G, Lk, K], s + 2),
            mask: causal && window ? undefined : tf.tensor4d(columns, [1, 1, 1, Lk]), // a window of padding only has no defined result
            sinks: sinks ? random([H], s + 3) : undefined
          }
          const attributes = { scale: K ** -0.5, causal, window: causal ? window : 0 }
          const exact = runKernel<tf.Tensor>('Attention', inputs, attributes)
          const size = runKernel<tf.Tensor>('Attention', { ...inputs, v: inputs.v.abs() }, attributes).norm()
          for (const kind of gemmKindsFor('attention') as readonly (keyof typeof tolerance)[]) {
            const y = withKernelSettings({ gemmKinds: { attention: kind } }, () =>
              runKernel<tf.Tensor>('Attention', inputs, { ...attributes, bfloat16: true })
            )
            const error = y.sub(exact).norm().div(size).dataSync()[0]!
            assert.ok(error <= tolerance[kind], `${kind}: ${error}`)
          }
        })
      ),
      { numRuns: 30 }
    ))

  it('what all keys have in common, however large, costs no precision', () =>
    tf.tidy(() => {
      const [q, x, v] = [1, 2, 3].map((s) => random<tf.Rank.R3>([1, 200, 64], s)) as [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D]
      const k = x.add<tf.Tensor3D>(tf.oneHot(tf.tensor1d([5], 'int32'), 64).mul(100)) // one channel is 100 in all keys
      const exact = attendMerged(q, x, v, 1, 1 / 8)
      const size = attendMerged(q, x, v.abs(), 1, 1 / 8).norm()
      if (gemmKindsFor('attention').includes('int8'))
        withKernelSettings({ gemmKinds: { attention: 'int8' } }, () => {
          const error = attendMerged(q, k, v, 1, 1 / 8, true)
            .sub(exact)
            .norm()
            .div(size)
            .dataSync()[0]!
          assert.ok(error <= tolerance.int8, `${error}`)
        })
    }))

  it('stays in float32 where activations do, where nothing allows bfloat16, and for few scores', () =>
    tf.tidy(() => {
      const [x, few] = [random<tf.Rank.R3>([1, 200, 128], 1), random<tf.Rank.R3>([1, 100, 128], 2)]
      const rounded = (x: tf.Tensor3D) => attendMerged(x, x, x, 2, 1 / 8, true).dataSync()
      const exact = (x: tf.Tensor3D) => attendMerged(x, x, x, 2, 1 / 8).dataSync()
      withKernelSettings({ float32Activations: true }, () => assert.deepEqual(rounded(x), exact(x)))
      for (const kind of gemmKindsFor('attention'))
        withKernelSettings({ gemmKinds: { attention: kind } }, () => {
          assert.deepEqual(rounded(few), exact(few))
          if (kind === 'float32') assert.deepEqual(rounded(x), exact(x))
          else assert.notDeepEqual(rounded(x), exact(x))
        })
    }))

  it('a query that is not a number leaves the other queries unchanged', () =>
    tf.tidy(() => {
      const [x, damaged] = [random<tf.Rank.R3>([1, 200, 64], 3), 77]
      const q = tf.where(
        tf
          .oneHot(tf.tensor1d([damaged], 'int32'), 200)
          .reshape([1, 200, 1])
          .toBool(),
        Number.NaN,
        x
      ) as tf.Tensor3D
      for (const kind of gemmKindsFor('attention'))
        withKernelSettings({ gemmKinds: { attention: kind } }, () => {
          const [found, expected] = [attendMerged(q, x, x, 1, 1 / 8, true), attendMerged(x, x, x, 1, 1 / 8, true)].map((y) =>
            y.dataSync()
          ) as [Float32Array, Float32Array]
          for (const [i, value] of found.entries())
            if (Math.floor(i / 64) === damaged) assert.ok(Number.isNaN(value))
            else assert.equal(value, expected[i])
        })
    }))
})
