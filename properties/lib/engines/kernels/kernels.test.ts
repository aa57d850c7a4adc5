import * as assert from 'node:assert/strict'
import fc from 'fast-check'
import { type EngineName, selectEngine } from '../../../../lib/engines/index.js'
import { kernelsInUse } from '../../../../lib/engines/kernels/register.js'
import {
  type GemmKind,
  gemmKindOf,
  gemmKindsFor,
  type WeightFormat,
  withKernelSettings
} from '../../../../lib/engines/kernels/settings.js'
import { type Activation, activationNames, activations, gated } from '../../../../lib/nn/activation.js'
import { type AttentionMaskOptions, attend, attendMerged } from '../../../../lib/nn/attention/attention.js'
import { attendCached } from '../../../../lib/nn/attention/cached-attention.js'
import { type LayerCache, layerCache } from '../../../../lib/nn/attention/kv-cache.js'
import { attentionBlock } from '../../../../lib/nn/attention/self-attention.js'
import { type DecoderLayerParts, fusedDecoder } from '../../../../lib/nn/fusion/fused-decoder.js'
import { gatedMlpBlock } from '../../../../lib/nn/gated-linear-unit.js'
import { affine, type Linear, linear, projectTogether } from '../../../../lib/nn/linear.js'
import { layerNorm, rmsNorm } from '../../../../lib/nn/norm.js'
import { residual } from '../../../../lib/nn/residual.js'
import { applyRope, type RopeTables } from '../../../../lib/nn/rope.js'
import { hasKernel, withoutKernels } from '../../../../lib/ops/kernel.js'
import { dequantize, formatOf, kernelFormats, type QuantizationFormat, quantize } from '../../../../lib/quantization/formats.js'
import { tf } from '../../../../lib/tf.js'

/** Every kernel equals the composition of plain ops at any size: tails of vectors, edges of tiles, one row, one head. */
const laws = (engine: EngineName) => () => {
  let engineBefore: EngineName
  before(async function () {
    engineBefore = (await selectEngine()).name
    const present = engineBefore === 'native' || engine !== 'native'
    if (present) await selectEngine({ engine })
    if (present && kernelsInUse().length > 0) return
    console.log(`    no kernels of the ${engine} engine here: the native one's are compiled by its set-up, for a CPU`)
    this.skip()
  })
  after(() => selectEngine({ engine: engineBefore }))

  const random = <R extends tf.Rank>(shape: tf.ShapeMap[R], seed: number): tf.Tensor<R> =>
    tf.randomNormal<R>(shape, 0, 1, 'float32', seed + 1) // TensorFlow replaces seed 0 by a random seed

  /** Largest difference, relative to the largest value or to `least` where all values are smaller. */
  const difference = (f: () => tf.Tensor, least = 0.01): number =>
    tf.tidy(() => {
      const [kernel, composition] = [f(), withoutKernels(f)]
      assert.deepEqual(kernel.shape, composition.shape)
      const [worst, most] = [kernel.sub(composition).abs().max(), composition.abs().max()].map((x) => x.dataSync()[0] ?? 0)
      return (worst ?? 0) / Math.max(most ?? 0, least)
    })
  const equal = (f: () => tf.Tensor, least?: number): void =>
    tf.tidy(() => assert.ok(difference(f, least) <= 1e-5, `${difference(f, least)}`))
  const activation = fc.constantFrom(...activationNames)
  const seed = fc.nat()
  const holds = <T extends unknown[]>(
    arbitraries: { [I in keyof T]: fc.Arbitrary<T[I]> },
    check: (...values: T) => void,
    numRuns = 40,
    examples: readonly T[] = []
  ): void =>
    fc.assert(
      fc.property(fc.tuple(...arbitraries), (values) => tf.tidy(() => check(...(values as unknown as T)))),
      { numRuns, examples: examples.map((values) => [values] as never) }
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
        const [x, w] = [random<tf.Rank.R3>([2, M, K], s), random<tf.Rank.R2>([N, K], s + 1).div<tf.Tensor2D>(Math.sqrt(K))]
        const b = bias ? random<tf.Rank.R1>([N], s + 2) : undefined
        // the rounding is that of sums whose size is 1, though an activation may leave only small values
        equal(() => affine(x, w, b, act ?? undefined), 1)
        equal(() => affine(x.slice([0, 0, 0], [1, 1, K]), w, b, act ?? undefined), 1)
      },
      40,
      [[1, 1098, 2, 'gelu', true, 285834594]] // values near 0 only
    ))

  const cases = fc.record({
    M: fc.integer({ min: 1, max: 30 }),
    K: fc.integer({ min: 1, max: 700 }),
    N: fc.integer({ min: 1, max: 90 }),
    format: fc.constantFrom(...kernelFormats),
    s: seed
  })
  /** Number of rows from which the GEMM multiplies with quantized weights; fewer rows use the GEMV. */
  const manyRows = 25
  const inIntegers = (format: QuantizationFormat | null | undefined): boolean => Boolean(format?.startsWith('int'))
  /** Asserts the error bound of the GEMV with blockwise weights: entries of x are rounded to int8, by at most half a step. */
  const closeTo = (f: () => tf.Tensor, x: tf.Tensor2D, weight: tf.Tensor2D): void => {
    const step = x.abs().max(1, true).div(127)
    const bound = step.mul(0.5).mul(weight.abs().sum(1).expandDims(0)).mul(1.001).add(1e-6)
    assert.ok(f().sub(withoutKernels(f)).abs().lessEqual(bound).all().dataSync()[0])
  }

  it('quantized weights: equal bit for bit, and products equal those of the dequantized weights', () =>
    holds([cases], ({ M, K, N, format, s }) => {
      const [x, w] = [random<tf.Rank.R2>([M, K], s), random<tf.Rank.R2>([N, K], s + 1).div<tf.Tensor2D>(Math.sqrt(K))]
      const weight = quantize(format, w)
      const [ours, theirs] = [weight, withoutKernels(() => quantize(format, w))].map((quantized) => formatOf(quantized).tensor)
      assert.deepEqual(ours!.shape, theirs!.shape)
      assert.deepEqual(ours!.dataSync(), theirs!.dataSync())
      assert.equal(
        difference(() => dequantize(weight, K)),
        0
      )
      const b = random<tf.Rank.R1>([N], s + 2)
      const rows = (n: number) => tf.tile(x, [Math.ceil(n / M), 1]).slice([0, 0], [n, K]) as tf.Tensor2D
      for (const n of [1, 2, 3, 7, 8, manyRows - 1])
        if (inIntegers(format)) closeTo(() => affine(rows(n), weight), rows(n), dequantize(weight, K))
        else equal(() => affine(rows(n), weight, b, 'silu'))
      equal(() => affine(rows(manyRows + M), weight, b, 'silu'))
    }))

  const nameOf = (format: (typeof kernelFormats)[number]): WeightFormat => (format === 'bf16' ? 'bfloat16' : format)
  /** Relative L2 error of a product with random numbers. */
  const tolerances: Readonly<Record<GemmKind, number>> = {
    ...{ float32: 1e-6, bfloat16: 4e-3, amxBfloat16: 4e-3, int16: 1.5e-3, int8: 8e-3 }
  }
  /** Largest error of an entry, relative to the product of absolute values. Rounding to bfloat16 has a relative error of at most 2⁻⁹. */
  const rounding = (kind: GemmKind, format: QuantizationFormat): number => {
    if (kind === 'bfloat16' || kind === 'amxBfloat16') return (format === 'bf16' ? 1 : 2) * 2 ** -9 * 1.001
    return { float32: 0, int16: 2e-3, int8: 2e-2 }[kind]
  }
  const large = fc.record({
    M: fc.integer({ min: manyRows, max: 80 }),
    K: fc.integer({ min: 400, max: 1100 }),
    N: fc.integer({ min: 330, max: 400 }),
    format: fc.constantFrom(...kernelFormats),
    s: seed
  })
  const operands = (K: number, N: number, M: number, s: number) => ({
    x: random<tf.Rank.R2>([M, K], s),
    w: random<tf.Rank.R2>([N, K], s + 1).div<tf.Tensor2D>(Math.sqrt(K))
  })
  it('many rows and large quantized weights: every kind of arithmetic is within its tolerance', () =>
    holds(
      [large],
      ({ M, K, N, format, s }) => {
        const { x, w } = operands(K, N, M, s)
        const weight = quantize(format, w)
        const exact = withoutKernels(() => affine(x, weight))
        const sizes = tf.matMul(x.abs(), dequantize(weight, K).abs(), false, true)
        for (const kind of gemmKindsFor(nameOf(format))) {
          const y = withKernelSettings({ gemmKinds: { [nameOf(format)]: kind } }, () => affine(x, weight))
          const error = y.sub(exact)
          const relative = error.norm().div(exact.norm()).dataSync()[0]!
          assert.ok(relative <= tolerances[kind], `${format} ${kind}: ${relative}`)
          const bound = sizes.mul(1e-6 + rounding(kind, format)).add(1e-6)
          assert.ok(error.abs().lessEqual(bound).all().dataSync()[0], `${format} ${kind}`)
        }
      },
      15
    ))

  it('an outlier in a row of activations leaves the other rows unchanged, and costs its own row the small entries beside the outlier', () =>
    holds(
      [large],
      ({ M, K, N, format, s }) => {
        const { x, w } = operands(K, N, M, s)
        const weight = quantize(format, w)
        const spike = tf.oneHot(tf.tensor1d([s % K], 'int32'), K).mul<tf.Tensor2D>(1000)
        const spiked = tf.concat([x.slice([0, 0], [1, K]).add<tf.Tensor2D>(spike), x.slice([1, 0], [M - 1, K])])
        const [plain, outlier] = [affine(x, weight), affine(spiked, weight)]
        assert.deepEqual(outlier.slice([1, 0], [M - 1, N]).dataSync(), plain.slice([1, 0], [M - 1, N]).dataSync())
        const exact = withoutKernels(() => affine(spiked, weight)).slice([0, 0], [1, N])
        const relative = outlier.slice([0, 0], [1, N]).sub(exact).norm().div(exact.norm()).dataSync()[0]!
        assert.ok(relative <= (gemmKindOf(nameOf(format)) === 'int8' ? 1e-2 : 5e-3), `${format}: ${relative}`)
      },
      8
    ))

  it('float32 activations: products with quantized weights equal the composition, for few rows and many', () =>
    holds(
      [large],
      ({ M, K, N, format, s }) => {
        const { x, w } = operands(K, N, M, s)
        const weight = quantize(format, w)
        withKernelSettings({ float32Activations: true }, () => {
          equal(() => affine(x, weight))
          equal(() => affine(x.slice([0, 0], [3, K]), weight))
        })
      },
      8
    ))

  const anyFormat = fc.option(fc.constantFrom(...kernelFormats))
  const randomLinear = (K: number, N: number, chosen: QuantizationFormat | null, i: number): Linear => {
    const [weight, bias] = [random<tf.Rank.R2>([N, K], i).div<tf.Tensor2D>(Math.sqrt(K)), random<tf.Rank.R1>([N], i + 5)]
    const stored = chosen ? quantize(chosen, weight) : weight
    return linear(K, N, { bias: i % 2 === 0 }).apply(i % 2 === 0 ? { weight: stored, bias } : { weight: stored })
  }
  it('q, k and v projected together are the same as one by one, bit for bit', () =>
    holds(
      [large, anyFormat, anyFormat],
      ({ M, K, N, format, s }, second, third) => {
        const layers = [randomLinear(K, N, format, s + 1), randomLinear(K, 40, second, s + 2), randomLinear(K, N, third, s + 3)]
        for (const rows of [1, M]) {
          const x = random<tf.Rank.R3>([1, rows, K], s)
          const together = projectTogether(layers as [Linear, Linear, Linear], x)
          for (const [i, layer] of layers.entries()) assert.deepEqual(together[i]!.dataSync(), layer(x).dataSync())
        }
      },
      8
    ))

  it('fused norms, residuals and gates do not change a product', () =>
    holds([cases, anyFormat, anyFormat, activation, fc.boolean()], ({ M, K, N, format, s }, second, third, act, normed) => {
      const [gate_proj, up_proj] = [randomLinear(K, N, format, s + 1), randomLinear(K, N, second, s + 2)]
      const projections = { gate_proj, up_proj, down_proj: randomLinear(N, K, third, s + 3) }
      const norm = rmsNorm(K, 1e-6).apply({ weight: random<tf.Rank.R1>([K], s + 4) })
      for (const rows of [1, M, manyRows + M]) {
        const [x, y] = [random<tf.Rank.R3>([1, rows, K], s), random<tf.Rank.R3>([1, rows, N], s + 9)]
        if (rows < manyRows && [format, second, third].some(inIntegers)) continue
        equal(() => gatedMlpBlock({ activation: act, projections: projections }, x, normed ? norm : undefined))
        equal(() => gate_proj(x, y))
      }
    }))

  const cached = fc.record({
    B: fc.integer({ min: 1, max: 3 }),
    G: fc.integer({ min: 1, max: 3 }),
    group: fc.integer({ min: 1, max: 3 }),
    half: fc.integer({ min: 1, max: 20 }),
    lengths: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
    window: fc.option(fc.integer({ min: 1, max: 20 }), { nil: undefined }),
    sinks: fc.boolean(),
    s: seed
  })
  it('attention with a cache that grows in place, step by step, and other continuations of the same cache', () =>
    holds([cached], ({ B, G, group, half, lengths, window, sinks, s }) => {
      const [H, K] = [G * group, 2 * half]
      const extra = { window, sinks: sinks ? random<tf.Rank.R1>([H], s) : undefined }
      const step = (past: LayerCache | undefined, L: number, i: number) => {
        const of = (heads: number, j: number) => random<tf.Rank.R3>([B, L, heads * K], s + 10 * i + j)
        const rope = { cos: random<tf.Rank.R4>([1, 1, L, K], s + i), sin: random<tf.Rank.R4>([1, 1, L, K], s + i + 1) }
        return attendCached([of(H, 1), of(G, 2), of(G, 3)], past, { numHeads: H, numKeyValueHeads: G, rope, ...extra })
      }
      const run = (): tf.Tensor => {
        let past: LayerCache | undefined
        const outputs = lengths.map((L, i) => {
          const { out, cache } = step(past, L, i)
          if (past) outputs2.push(step(past, 1, i + 50).out) // another future of the same past
          past = cache
          return out
        })
        const counted = past!.key.slice([0, 0, 0, 0], [B, G, past!.length, K])
        return tf.concat([...outputs, ...outputs2.splice(0), counted].map((t) => t.flatten()))
      }
      const outputs2: tf.Tensor[] = []
      equal(run)
    }))

  it('a fused attention block equals its operations one by one, for every quantization format, with and without head norms', () =>
    holds(
      [cached, fc.tuple(anyFormat, anyFormat), fc.boolean()],
      ({ B, G, group, half, lengths, window, sinks, s }, chosen, normed) => {
        const [H, K, D] = [G * group, 2 * half, 24]
        const [first, second] = chosen.map((format) => (inIntegers(format) ? 'bf16' : format)) as [
          QuantizationFormat | null,
          QuantizationFormat | null
        ]
        const headNorm = (i: number) => rmsNorm(K, 1e-5).apply({ weight: random<tf.Rank.R1>([K], s + i) })
        const projections = {
          ...{
            q_proj: randomLinear(D, H * K, first, s),
            k_proj: randomLinear(D, G * K, second, s + 1),
            v_proj: randomLinear(D, G * K, first, s + 2)
          },
          o_proj: randomLinear(H * K, D, second, s + 3),
          ...(normed ? { q_norm: headNorm(4), k_norm: headNorm(5) } : {})
        }
        const norm = rmsNorm(D, 1e-6).apply({ weight: random<tf.Rank.R1>([D], s + 6) })
        const sink = sinks ? random<tf.Rank.R1>([H], s + 7) : undefined
        const parts = { projections: projections, numHeads: H, numKeyValueHeads: G, window, sinks: sink }
        equal(() => {
          let past: LayerCache | undefined
          const outputs = lengths.map((L, i) => {
            const rope = { cos: random<tf.Rank.R4>([1, 1, L, K], s + i), sin: random<tf.Rank.R4>([1, 1, L, K], s + i + 1) }
            const { hidden, cache } = attentionBlock(random<tf.Rank.R3>([B, L, D], s + 10 * i), norm, parts, {
              ...{ cache: past, rope, padding: undefined, segments: undefined }
            })
            past = cache
            return hidden
          })
          return tf.concat([...outputs, past!.key.slice([0, 0, 0, 0], [B, G, past!.length, K])].map((t) => t.flatten()))
        })
      }
    ))

  it('a fused decoder equals its layers and norm one by one, for every quantization format, with and without a cache', () =>
    holds([cached, fc.tuple(anyFormat, anyFormat), fc.boolean()], ({ B, G, group, half, lengths, window, s }, chosen, normed) => {
      const [H, K, D, I] = [G * group, 2 * half, 24, 40]
      const [first, second] = chosen.map((format) => (inIntegers(format) ? 'bf16' : format)) as [
        QuantizationFormat | null,
        QuantizationFormat | null
      ]
      const layerOf = (s: number): DecoderLayerParts => {
        const norm = (size: number, i: number) => rmsNorm(size, 1e-6).apply({ weight: random<tf.Rank.R1>([size], s + i) })
        const attentionProjections = {
          ...{
            q_proj: randomLinear(D, H * K, first, s),
            k_proj: randomLinear(D, G * K, second, s + 1),
            v_proj: randomLinear(D, G * K, first, s + 2)
          },
          o_proj: randomLinear(H * K, D, second, s + 3),
          ...(normed ? { q_norm: norm(K, 4), k_norm: norm(K, 5) } : {})
        }
        const mlpProjections = {
          gate_proj: randomLinear(D, I, first, s + 6),
          up_proj: randomLinear(D, I, second, s + 7),
          down_proj: randomLinear(I, D, first, s + 8)
        }
        const attention = { projections: attentionProjections, numHeads: H, numKeyValueHeads: G, window }
        return {
          attentionNorm: norm(D, 9),
          attention,
          mlpNorm: norm(D, 10),
          mlp: { projections: mlpProjections, activation: 'silu' }
        }
      }
      const layers = [layerOf(s), layerOf(s + 20), layerOf(s + 40)]
      const last = rmsNorm(D, 1e-6).apply({ weight: random<tf.Rank.R1>([D], s + 60) })
      const allLayers = fusedDecoder(layers, last)
      const oneByOne = (x: tf.Tensor3D, past: readonly LayerCache[] | undefined, rope: RopeTables) => {
        let hidden = x
        const cache = layers.map(({ attentionNorm, attention, mlpNorm, mlp }, i) => {
          const context = { cache: past?.[i], rope, padding: undefined, segments: undefined }
          const block = attentionBlock(hidden, attentionNorm, attention, context)
          hidden = gatedMlpBlock(mlp, block.hidden, mlpNorm)
          return block.cache
        })
        return { hidden: last(hidden), cache }
      }
      equal(() => {
        let past: readonly LayerCache[] | undefined
        const outputs = lengths.map((L, i) => {
          const rope = { cos: random<tf.Rank.R4>([1, 1, L, K], s + i), sin: random<tf.Rank.R4>([1, 1, L, K], s + i + 1) }
          const x = random<tf.Rank.R3>([B, L, D], s + 10 * i)
          const together = allLayers(x, past, { rope, padding: undefined, segments: undefined })
          assert.equal(together !== undefined, hasKernel('DecoderLayers'))
          const { hidden, cache } = together ?? oneByOne(x, past, rope)
          past = cache
          return hidden
        })
        const keys = past!.map(({ key, length }) => key.slice([0, 0, 0, 0], [B, G, length, K]))
        return tf.concat([...outputs, ...keys].map((t) => t.flatten()))
      })
    }))

  it('a cache is a value: appends leave it unchanged, and positions are copied only when the capacity is exceeded', () =>
    holds([fc.integer({ min: 1, max: 50 }), seed], (L, s) => {
      const of = (n: number, i: number) => random<tf.Rank.R3>([1, n, 8], s + i)
      const rope = { cos: tf.ones<tf.Rank.R4>([1, 1, 1, 8]), sin: tf.zeros<tf.Rank.R4>([1, 1, 1, 8]) }
      const options = { numHeads: 1, numKeyValueHeads: 1, rope }
      const first = layerCache(random<tf.Rank.R4>([1, 1, L, 8], s), random<tf.Rank.R4>([1, 1, L, 8], s + 1))
      const before = first.key.dataSync()
      let now = first
      const capacities = new Set<number>()
      for (let i = 0; i < 100; i++) {
        now = attendCached([of(1, i), of(1, i + 1), of(1, i + 2)], now, options).cache
        capacities.add(now.key.shape[2])
        assert.ok(now.length === L + i + 1 && now.key.shape[2] >= now.length)
      }
      if (kernelsInUse().includes('CachedAttention')) assert.ok(capacities.size < 8, 'memory grows by half')
      assert.deepEqual(first.key.dataSync(), before)
      assert.deepEqual(now.key.slice([0, 0, 0, 0], [1, 1, L, 8]).dataSync(), before)
    }))

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
      // a row whose window holds padding only has no defined result
      const padding = hidden > 0 && !window ? tf.tensor4d(columns, [B, 1, 1, Lk]) : undefined
      const see: AttentionMaskOptions = {
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
        equal(() => rmsNorm(D, 1e-6).apply({ weight })(tf.concat([x, y, y], 1)))
        equal(() => residual(x, y, weight))
        equal(() => activations[act](x))
        equal(() => gated(act, x, y))
      }
    ))

  it('rotary positions of whole heads, and of the first part of each head', () =>
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
      (B: number, H: number, L: number, half: number, rest: number, perRow: boolean, s: number) => {
        const shape: [number, number, number, number] = [perRow ? B : 1, 1, L, 2 * half]
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
      for (const format of kernelFormats)
        for (const rows of [1, 20])
          assert.ok(holdsNaN(affine(tf.fill([rows, 70], Number.NaN), quantize(format, tf.ones([4, 70])))), format)
      for (const format of kernelFormats)
        assert.ok(holdsNaN(affine(tf.fill([30, 512], Number.NaN), quantize(format, tf.ones([300, 512])))), format)
    })
    nan.dispose()
  })

  it('inputs that do not agree, or are not float32, are an error of the op', () => {
    assert.throws(() => tf.tidy(() => affine(tf.ones([2, 3]), tf.ones([4, 5]) as tf.Tensor2D)), /must agree/)
    assert.throws(() => tf.tidy(() => affine(tf.ones([2, 3], 'int32'), tf.ones([4, 3]) as tf.Tensor2D)), /float|int32/)
  })
}

describe('kernels of the native engine', laws('native'))
describe('kernels of the wasm engine', laws('wasm'))
