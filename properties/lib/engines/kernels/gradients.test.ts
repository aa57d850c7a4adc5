import * as assert from 'node:assert/strict'
import fc from 'fast-check'
import { vjp } from '../../../../lib/autograd/tape.js'
import { training } from '../../../../lib/autograd/train-mode.js'
import { selectEngine } from '../../../../lib/engines/index.js'
import { activationNames, activations, gated } from '../../../../lib/nn/activation.js'
import { attend, attendMerged, attendMergedCausal } from '../../../../lib/nn/attention/attention.js'
import { affine, type Linear, linear, projectTogether } from '../../../../lib/nn/linear.js'
import { tokenLosses } from '../../../../lib/nn/losses/cross-entropy.js'
import { layerNorm, rmsNorm } from '../../../../lib/nn/norm.js'
import { residual } from '../../../../lib/nn/residual.js'
import { applyRope, applyRopeMerged } from '../../../../lib/nn/rope.js'
import { withoutKernels } from '../../../../lib/ops/kernel.js'
import { adamW, globalNorm } from '../../../../lib/optim/adamw.js'
import { namedParameters } from '../../../../lib/params.js'
import { tf } from '../../../../lib/tf.js'
import { count, randomTensor, seed } from '../../../arbitraries/tensor.js'
import { check } from '../../../laws/check.js'
import { assertClose } from '../../../laws/close.js'

type Tensors = readonly tf.Tensor[]
/** A function of any number of tensors; parameters of type `never` accept every layer. */
type Op = (...xs: never[]) => tf.Tensor

/** Gradients of the inputs `wanted` of `f`, for a random gradient of the output. */
const gradientsOf = (f: Op, xs: Tensors, wanted: Tensors): Tensors =>
  vjp(() => [(f as (...xs: Tensors) => tf.Tensor)(...xs)], wanted, ([y]) => [randomTensor([...y!.shape], 77)]).grads.map((g) => g!) // biome-ignore format: one line

/** Asserts that kernels and their compositions have equal gradients: of all inputs together, and of each input alone. */
const assertSameGradients = (f: Op, xs: Tensors, tolerance = 2e-5): void => {
  const expected = withoutKernels(() => gradientsOf(f, xs, xs))
  for (const [i, g] of gradientsOf(f, xs, xs).entries()) assertClose(g, expected[i]!, tolerance, `input ${i}`)
  for (const [i, x] of xs.entries()) assertClose(gradientsOf(f, xs, [x])[0]!, expected[i]!, tolerance, `input ${i} alone`)
}

describe('gradients of kernels are those of their compositions', () => {
  before(() => selectEngine())
  const rows = fc.record({ B: count(3), L: count(50), D: count(70), N: count(60), seed })

  it('affine', () =>
    check(
      fc.record({ rows, large: fc.boolean(), bias: fc.boolean() }),
      ({ rows: { L, D, N, seed }, large, bias }) => {
        const [M, K] = large ? [L * 9, D * 9] : [L, D]
        const xs = [randomTensor([2, M, K], seed), randomTensor([N, K], seed + 1), randomTensor([N], seed + 2)]
        assertSameGradients((x, w, b) => affine(x, w, b), bias ? xs : xs.slice(0, 2), 5e-5)
      },
      12
    ))

  it('an affine layer with a residual, and two or three layers of one input', () =>
    check(
      fc.record({ rows, G: count(40), bias: fc.boolean() }),
      ({ rows: { L, D, N, seed }, G, bias }) => {
        const x = randomTensor([2, L, D], seed)
        const layerOf = (i: number, size: number): Tensors =>
          [randomTensor([size, D], seed + i), randomTensor([size], seed + i + 1)].slice(0, bias ? 2 : 1)
        const [first, ...others] = [layerOf(1, N), layerOf(3, G), layerOf(5, G)] as const
        const bound = (weights: Tensors): Linear =>
          linear(D, weights[0]!.shape[0]!, { bias }).apply({ weight: weights[0], bias: weights[1] } as never)
        assertSameGradients(
          (x, residual, ...weights) => bound(weights)(x, residual),
          [x, randomTensor([2, L, N], seed + 7), ...first]
        )
        const size = first.length
        const split = (weights: Tensors): readonly [Linear, Linear, Linear] =>
          [...Array(weights.length / size).keys()].map((i) => bound(weights.slice(i * size, (i + 1) * size))) as never
        // outputs that the loss does not use have zeros as gradients
        for (const [count, used] of [
          [3, [0, 1, 2]],
          [3, [1]],
          [2, [0, 1]],
          [2, [1]]
        ] as const) {
          // biome-ignore format: one line
          const f = (x: tf.Tensor, ...weights: tf.Tensor[]) => {
            const outputs = projectTogether(split(weights), x)
            return tf.concat(
              used.map((i) => outputs[i]!),
              -1
            )
          }
          const all = [x, ...first, ...others.slice(0, count - 1).flat()]
          const expected = withoutKernels(() => gradientsOf(f, all, all.slice(0, 1)))
          assertClose(gradientsOf(f, all, all.slice(0, 1))[0]!, expected[0]!, 5e-5, 'x alone')
          if (used.length === count) assertSameGradients(f, all, 5e-5)
        }
      },
      12
    ))

  it('affine with weights larger than the CPU caches, with few rows and with more rows than are packed at once', () => {
    for (const [M, K, N] of [
      [9, 563, 521],
      [1600, 131, 1029]
    ] as const)
      assertSameGradients((x, w) => affine(x, w), [randomTensor([M, K], 1), randomTensor([N, K], 2)], 5e-5)
  })

  it('a linear layer with a LoRA update, with and without dropout: values and gradients', () =>
    check(
      fc.record({ rows, rank: count(20), bias: fc.boolean(), drops: fc.boolean() }),
      ({ rows: { L, D, N, seed }, rank, bias, drops }) => {
        const [base, b] = [randomTensor<tf.Tensor2D>([N, D], seed), randomTensor<tf.Tensor1D>([N], seed + 1)]
        const f = (x: tf.Tensor, lora_A: tf.Tensor2D, lora_B: tf.Tensor2D) => {
          const weight = { base, lora_A, lora_B, scaling: tf.scalar(0.7), ...(drops ? { dropout: tf.scalar(0.3) } : {}) }
          return training({ seed }, () => affine(x, weight, bias ? b : undefined))
        }
        const xs = [
          [2, L, D],
          [rank, D],
          [N, rank]
        ].map((shape, i) => randomTensor(shape, seed + 2 + i))
        assertSameGradients(f, xs)
        const y = () => f(...(xs as [tf.Tensor, tf.Tensor2D, tf.Tensor2D]))
        assertClose(y(), withoutKernels(y), 2e-5)
      },
      20
    ))

  it('norms, also of merged heads', () =>
    check(
      fc.record({ rows, H: count(3) }),
      ({ rows: { B, L, D, seed }, H }) => {
        const [x, w, b] = [randomTensor([B, L, D], seed, 3), randomTensor([D], seed + 1), randomTensor([D], seed + 2)]
        assertSameGradients((x, weight, bias) => layerNorm(D, 1e-2).apply({ weight, bias })(x), [x, w, b])
        assertSameGradients((x, weight) => rmsNorm(D, 1e-2).apply({ weight })(x), [randomTensor([B, L, H * D], seed + 3), w])
      },
      12
    ))

  it('norms whose input has gradients from other operations, before and after, also twice', () =>
    check(
      rows,
      ({ B, L, D, seed }) => {
        const xs = [randomTensor([B, L, D], seed, 3), randomTensor([D], seed + 1), randomTensor([D], seed + 2)] as const
        const norms = (weight: tf.Tensor, bias: tf.Tensor) => [
          layerNorm(D, 1e-2).apply({ weight, bias } as never),
          rmsNorm(D, 1e-2).apply({ weight } as never)
        ]
        for (const i of [0, 1])
          assertSameGradients(
            (x: tf.Tensor, w: tf.Tensor, b: tf.Tensor) => {
              const norm = norms(w, b)[i]!
              const h = x.clone().add(norm(x)) // a residual block
              return h
                .mul(norm(h))
                .add(norm(norm(h)))
                .add(norm(x))
                .add(x.square())
            },
            xs.slice(0, 3 - i),
            5e-5
          )
      },
      12
    ))

  it('activations, gates and residuals', () =>
    check(rows, ({ B, L, D, seed }) => {
      const [x, y] = [randomTensor([B, L, D], seed, 2), randomTensor([B, L, D], seed + 1)]
      for (const name of activationNames) {
        assertSameGradients((x) => activations[name](x), [x])
        assertSameGradients((x, y) => gated(name, x, y), [x, y])
      }
      assertSameGradients((x, branch, scale) => residual(x, branch, scale), [x, y, randomTensor([D], seed + 2)])
    }))

  it('rotary positions', () =>
    check(fc.record({ rows, half: count(9), rest: fc.nat(5) }), ({ rows: { B, L, seed }, half, rest }) => {
      const angles = randomTensor<tf.Tensor4D>([1, 1, L, half], seed)
      const tables = { cos: tf.concat([angles.cos(), angles.cos()], 3), sin: tf.concat([angles.sin(), angles.sin()], 3) }
      assertSameGradients((x) => applyRope(x, tables), [randomTensor([B, 2, L, 2 * half + rest], seed + 1)])
    }))

  const attention = fc.record({
    B: count(2),
    G: count(2),
    group: count(3),
    L: count(130),
    past: fc.nat(20),
    K: count(40),
    causal: fc.boolean(),
    window: fc.option(count(20), { nil: undefined }),
    padded: fc.boolean(),
    seed
  })
  it('attention: groups, a causal mask after a past, windows, padding', () =>
    check(
      attention,
      ({ B, G, group, L, past, K, causal, window, padded, seed }) => {
        const of = (heads: number, length: number, i: number) => randomTensor<tf.Tensor4D>([B, heads, length, K], seed + i)
        const hidden = Array.from({ length: B * (past + L) }, (_, j) => (j % (past + L) < past / 2 ? -1e9 : 0))
        const padding = padded ? tf.tensor4d(hidden, [B, 1, 1, past + L]) : undefined
        const see = { ...(causal ? { causalFrom: past, window } : {}), padding }
        assertSameGradients(
          (q, k, v) => attend(q, k, v, K ** -0.5, see),
          [of(G * group, L, 0), of(G, past + L, 1), of(G, past + L, 2)]
        )
      },
      15
    ))

  it('causal attention of merged, rotated heads: groups, windows, samples of packed rows in one piece or in several', () => {
    const samples = fc.record({ lengths: fc.array(count(50), { minLength: 1, maxLength: 4 }), repeats: fc.boolean() })
    return check(
      fc.record({ attention, samples: fc.option(samples, { nil: undefined }) }),
      ({ attention: { B, G, group, L, K, window, padded, seed }, samples }) => {
        const length = samples ? samples.lengths.reduce((a, b) => a + b) : L
        const numbers = samples?.lengths.flatMap((n, i) => new Array<number>(n).fill(samples.repeats ? i % 2 : i))
        const segments = numbers && tf.tensor2d(Array.from({ length: B }, () => numbers).flat(), [B, length], 'int32')
        const padding = padded ? randomTensor<tf.Tensor4D>([B, 1, 1, length], seed + 4) : undefined // any additive mask
        const angles = randomTensor<tf.Tensor4D>([B, 1, length, K], seed)
        const tables = { cos: tf.concat([angles.cos(), angles.cos()], 3), sin: tf.concat([angles.sin(), angles.sin()], 3) }
        const heads = { numHeads: G * group, numKeyValueHeads: G }
        const run = (q: tf.Tensor3D, k: tf.Tensor3D, v: tf.Tensor3D) => {
          const [queries, keys] = [applyRopeMerged(q, heads.numHeads, tables), applyRopeMerged(k, G, tables)]
          return attendMergedCausal(queries, keys, v, heads, K ** -0.5, { window, padding, segments })
        }
        const xs = [G * group, G, G].map((n, i) => randomTensor<tf.Tensor3D>([B, length, n * 2 * K], seed + i + 1))
        const [q, k, v] = xs as [tf.Tensor3D, tf.Tensor3D, tf.Tensor3D]
        const value = () => run(q, k, v)
        assertClose(value(), withoutKernels(value), 2e-5)
        assertSameGradients(run, xs)
      },
      15
    )
  })

  it('attention of merged heads', () =>
    check(fc.record({ B: count(2), H: count(4), L: count(130), K: count(30), seed }), ({ B, H, L, K, seed }) => {
      const xs = [0, 1, 2].map((i) => randomTensor([B, L, H * K], seed + i))
      assertSameGradients((q, k, v) => attendMerged(q, k, v, H, K ** -0.5), xs)
    }))

  it('token losses, and their values', () =>
    check(fc.record({ N: count(60), V: count(90, 2), seed }), ({ N, V, seed }) => {
      const labels = tf.tensor1d(Array.from({ length: N }, (_, i) => ((i + seed) % 3 ? (i * 7) % V : -100)), 'int32') // biome-ignore format: one line
      const logits = randomTensor<tf.Tensor2D>([N, V], seed, 5)
      const run = () => tokenLosses(logits, labels)
      assertClose(run(), withoutKernels(run))
      assertSameGradients((x) => tokenLosses(x, labels), [logits])
    }))

  it('a step of AdamW, and the norm of a tree', () =>
    check(fc.record({ sizes: fc.array(count(40000), { minLength: 1, maxLength: 3 }), seed }), ({ sizes, seed }) => {
      const of = (i: number) => Object.fromEntries(sizes.map((n, j) => [`p${j}`, randomTensor([n], seed + i + j)]))
      const [params, grads] = [of(0), of(10)]
      const optimizer = adamW({ learningRate: 0.01, weightDecay: 0.1 })
      const run = () => {
        const once = optimizer.update(params, grads, optimizer.init(params), { gradScale: 0.7 })
        const { params: after, state } = optimizer.update(once.params, of(20), once.state)
        return namedParameters([after, state.first, state.second])
      }
      const expected = new Map(withoutKernels(run))
      for (const [path, x] of run()) assertClose(x, expected.get(path)!, 1e-5, path)
      const [norm, composed] = [globalNorm(grads), withoutKernels(() => globalNorm(grads))]
      assert.ok(Math.abs(norm - composed) < 1e-5 * composed, `${norm}, expected ${composed}`)
    }))
})
