import * as assert from 'node:assert/strict'
import fc from 'fast-check'
import { type EngineName, selectEngine } from '../../../lib/engines/index.js'
import { kernelsInUse } from '../../../lib/engines/kernels/register.js'
import { type Activation, activationNames, activations, gated } from '../../../lib/nn/activation.js'
import { attend, attendMerged, type Visibility } from '../../../lib/nn/attention.js'
import { withoutKernels } from '../../../lib/nn/fused.js'
import { affine } from '../../../lib/nn/linear.js'
import { layerNorm, rmsNorm } from '../../../lib/nn/norm.js'
import { addScaled } from '../../../lib/nn/residual.js'
import { applyRope } from '../../../lib/nn/rope.js'
import { tf } from '../../../lib/tf.js'

/** Each kernel gives what the composition of plain ops gives, at any size: vectors' tails, tiles' edges, one row, one head. */
const laws = (engine: EngineName) => () => {
  let own: EngineName
  before(async function () {
    own = (await selectEngine()).name
    const present = own === 'native' || engine !== 'native'
    if (present) await selectEngine({ engine })
    if (present && kernelsInUse().length > 0) return
    console.log(`    no kernels of the ${engine} engine here: the native one's are compiled by its set-up, for a CPU`)
    this.skip()
  })
  after(() => selectEngine({ engine: own }))

  const random = <R extends tf.Rank>(shape: tf.ShapeMap[R], seed: number): tf.Tensor<R> =>
    tf.randomNormal<R>(shape, 0, 1, 'float32', seed)

  /** Largest difference, over the largest value. */
  const difference = (f: () => tf.Tensor): number =>
    tf.tidy(() => {
      const [kernel, composition] = [f(), withoutKernels(f)]
      assert.deepEqual(kernel.shape, composition.shape)
      const [worst, most] = [kernel.sub(composition).abs().max(), composition.abs().max()].map((x) => x.dataSync()[0] ?? 0)
      return (worst ?? 0) / (most || 1)
    })
  const equal = (f: () => tf.Tensor): void => tf.tidy(() => assert.ok(difference(f) <= 1e-5, `${difference(f)}`))
  const activation = fc.constantFrom(...activationNames)
  const seed = fc.nat()
  const holds = <T extends unknown[]>(arbitraries: { [I in keyof T]: fc.Arbitrary<T[I]> }, check: (...drawn: T) => void): void =>
    fc.assert(
      fc.property(fc.tuple(...arbitraries), (drawn) => tf.tidy(() => check(...(drawn as unknown as T)))),
      { numRuns: 40 }
    )

  it('affine: few rows and many, edges of tiles, every activation, any rank', () =>
    holds(
      [
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: 1, max: 1100 }),
        fc.integer({ min: 1, max: 140 }),
        fc.option(activation),
        fc.boolean(),
        seed
      ],
      (M: number, K: number, N: number, act: Activation | null, bias: boolean, s: number) => {
        const [x, w] = [random<tf.Rank.R3>([2, M, K], s), random<tf.Rank.R2>([N, K], s + 1)]
        const b = bias ? random<tf.Rank.R1>([N], s + 2) : undefined
        equal(() => affine(x, w, b, act ?? undefined))
        equal(() => affine(x.slice([0, 0, 0], [1, 1, K]), w, b, act ?? undefined))
      }
    ))

  const attention = fc.record({
    B: fc.integer({ min: 1, max: 3 }),
    G: fc.integer({ min: 1, max: 3 }),
    group: fc.integer({ min: 1, max: 4 }),
    Lq: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 130 })),
    past: fc.integer({ min: 0, max: 150 }),
    K: fc.integer({ min: 1, max: 70 }),
    causal: fc.boolean(),
    window: fc.option(fc.integer({ min: 1, max: 40 }), { nil: undefined }),
    hidden: fc.integer({ min: 0, max: 9 }),
    sinks: fc.boolean(),
    s: seed
  })
  it('attention: grouped queries, causal from any past, windows, padding, sinks', () =>
    holds([attention], ({ B, G, group, Lq, past, K, causal, window, hidden, sinks, s }) => {
      const [H, Lk] = [G * group, past + Lq]
      const columns = Array.from({ length: B * Lk }, (_, j) => (j % Lk < Math.min(hidden, past) ? -1e9 : 0))
      // a window of padding alone shows nothing: what such a row holds is no one's concern
      const padding = hidden > 0 && !window ? tf.tensor4d(columns, [B, 1, 1, Lk]) : undefined
      const see: Visibility = {
        ...(causal ? { causalFrom: past, window } : {}),
        padding,
        ...(sinks ? { sinks: random<tf.Rank.R1>([H], s + 3) } : {})
      }
      const [q, k, v] = [
        random<tf.Rank.R4>([B, H, Lq, K], s),
        random<tf.Rank.R4>([B, G, Lk, K], s + 1),
        random<tf.Rank.R4>([B, G, Lk, K], s + 2)
      ]
      equal(() => attend(q, k, v, K ** -0.5, see))
    }))

  it('attention of merged heads', () =>
    holds(
      [
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 150 }),
        fc.integer({ min: 1, max: 40 }),
        seed
      ],
      (B: number, H: number, L: number, K: number, s: number) => {
        const [q, k, v] = [0, 1, 2].map((i) => random<tf.Rank.R3>([B, L, H * K], s + i)) as [
          tf.Tensor3D,
          tf.Tensor3D,
          tf.Tensor3D
        ]
        equal(() => attendMerged(q, k, v, H, K ** -0.5))
      }
    ))

  it('norms, residuals and activations, also far from zero', () =>
    holds(
      [fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 300 }), fc.constantFrom(1, 20), activation, seed],
      (rows: number, D: number, size: number, act: Activation, s: number) => {
        const [x, y] = [random<tf.Rank.R2>([rows, D], s).mul<tf.Tensor2D>(size), random<tf.Rank.R2>([rows, D], s + 1)]
        const [weight, bias] = [random<tf.Rank.R1>([D], s + 2), random<tf.Rank.R1>([D], s + 3)]
        equal(() => layerNorm(D, 1e-6).apply({ weight, bias })(x))
        equal(() => rmsNorm(D, 1e-6).apply({ weight })(x))
        equal(() => addScaled(x, y, weight))
        equal(() => activations[act](x))
        equal(() => gated(act, x, y))
      }
    ))

  it('rotary positions, of whole heads and of their first part', () =>
    holds(
      [
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 0, max: 9 }),
        fc.boolean(),
        seed
      ],
      (B: number, H: number, L: number, half: number, rest: number, each: boolean, s: number) => {
        const shape: [number, number, number, number] = [each ? B : 1, 1, L, 2 * half]
        const tables = { cos: random<tf.Rank.R4>(shape, s), sin: random<tf.Rank.R4>(shape, s + 1) }
        const x = random<tf.Rank.R4>([B, H, L, 2 * half + rest], s + 2)
        equal(() => applyRope(x, tables))
      }
    ))

  it('NaN in, NaN out', () => {
    const nan = tf.fill([1, 1, 20, 8], Number.NaN) as tf.Tensor4D
    const holdsNaN = (x: tf.Tensor): boolean => x.dataSync().every(Number.isNaN)
    tf.tidy(() => {
      for (const name of activationNames) assert.ok(holdsNaN(activations[name](nan)), name)
      assert.ok(holdsNaN(attend(nan, nan, nan, 1)))
      assert.ok(holdsNaN(attend(nan.slice([0, 0, 0, 0], [1, 1, 1, 8]), nan, nan, 1)))
    })
    nan.dispose()
  })

  it('inputs that do not agree, or are no float32, are an error of the op', () => {
    assert.throws(() => tf.tidy(() => affine(tf.ones([2, 3]), tf.ones([4, 5]) as tf.Tensor2D)), /must agree/)
    assert.throws(() => tf.tidy(() => affine(tf.ones([2, 3], 'int32'), tf.ones([4, 3]) as tf.Tensor2D)), /float|int32/)
  })
}

describe('kernels of the native engine', laws('native'))
describe('kernels of the wasm engine', laws('wasm'))
