import * as assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { selectEngine } from '../../../../lib/engines/index.js'
import { kernelsInUse } from '../../../../lib/engines/kernels/register.js'
import { activationNames, activations, gated } from '../../../../lib/nn/activation.js'
import { attend, attendMerged } from '../../../../lib/nn/attention/attention.js'
import { affine } from '../../../../lib/nn/linear.js'
import { tokenLosses } from '../../../../lib/nn/losses/cross-entropy.js'
import { layerNorm, rmsNorm } from '../../../../lib/nn/norm.js'
import { residual } from '../../../../lib/nn/residual.js'
import { applyRope } from '../../../../lib/nn/rope.js'
import { runKernel, withoutKernels } from '../../../../lib/ops/kernel.js'
import { ShapeError } from '../../../../lib/shape.js'
import { tf } from '../../../../lib/tf.js'

const child = fileURLToPath(new URL('wrong-calls-child.ts', import.meta.url))

const wrongCalls = (mode: 'checked' | 'unchecked', seed: number, count: number) => {
  const run = spawnSync(process.execPath, ['--import', 'tsx', child, mode, `${seed}`, `${count}`], {
    encoding: 'utf8',
    env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3' }
  })
  assert.equal(run.status, 0, `seed ${seed}: the process ended with ${run.signal ?? run.status}\n${run.stderr.slice(-3000)}`)
  return JSON.parse(run.stdout.trim().split('\n').at(-1)!) as {
    readonly kernels: number
    readonly valid: number
    readonly given: number
    readonly refused: number
    readonly otherwise: readonly string[]
  }
}

describe('wrong calls of kernels', () => {
  before(async function () {
    const { name } = await selectEngine()
    if (name !== 'native' || kernelsInUse().length === 0) this.skip()
  })
  const seed = Number(process.env.PROPERTY_SEED ?? 20)

  it('give a ShapeError or a result, and never end the process', function () {
    this.timeout(300_000)
    const { kernels, valid, given, refused, otherwise } = wrongCalls('checked', seed, 4000)
    assert.deepEqual(otherwise, [])
    assert.ok(valid > 2 * kernels && refused > 1000 && given > 100, JSON.stringify({ valid, given, refused }))
  })

  it('are refused by the compiled operators too, where no TypeScript checks them', function () {
    this.timeout(300_000)
    const { refused } = wrongCalls('unchecked', seed, 4000)
    assert.ok(refused > 1000, `${refused}`)
  })

  const shapeError = (f: () => tf.Tensor | tf.Tensor[], message: RegExp): void =>
    assert.throws(
      () => tf.tidy(f),
      (error) => error instanceof ShapeError && message.test(error.message)
    )

  it('name the kernel, the argument, the expected and the actual shape', () => {
    const scalar = tf.scalar(1)
    const labels = tf.scalar(0, 'int32')
    const identity = (n: number) => tf.eye(n)
    shapeError(() => runKernel('LayerNorm', { x: scalar, weight: tf.ones([2]), bias: tf.ones([2]) }, { eps: 1 }), /^LayerNorm: .*x: expected float32 \[…, D\], got float32 \[\]$/) // biome-ignore format: one line
    shapeError(() => runKernel('LayerNorm', { x: identity(2), weight: tf.ones([3]), bias: tf.ones([2]) }, { eps: 1 }), /weight: expected float32 \[D = 2\], got float32 \[3\]/) // biome-ignore format: one line
    shapeError(() => runKernel('RmsNorm', { x: scalar, weight: tf.ones([2]) }, { eps: 1 }), /^RmsNorm: .*x/)
    shapeError(() => runKernel('RmsNorm', { x: tf.ones([2, 5]), weight: tf.ones([2]) }, { eps: 1 }), /D > 0 that divides N, got D = 2, N = 5/) // biome-ignore format: one line
    shapeError(() => runKernel('CrossEntropy', { logits: scalar, labels }, {}), /^CrossEntropy: .*logits/)
    shapeError(() => runKernel('Rope', { x: tf.ones([1, 1, 1, 2]), cos: scalar, sin: scalar }, {}), /^Rope: .*cos/)
    shapeError(() => runKernel('QuantizeWeight', { x: identity(2) }, { format: 'float32' }), /format: expected one of bfloat16, int8, int6, int4, got float32/) // biome-ignore format: one line
    shapeError(() => runKernel('Linear', { x: identity(2), weight: identity(2) }, { format: 'int8' }), /weight: expected int32 \[N, K = 2, packed as int8\], got float32 \[2, 2\]/) // biome-ignore format: one line
    const lora = {
      dy: identity(2),
      x: identity(2),
      weight: tf.ones([2]),
      lora_A: identity(2),
      lora_B: identity(2),
      scaling: scalar
    }
    const needs = { needsX: true, needsLoraInput: false, needsLoraA: true, needsLoraB: true }
    shapeError(() => runKernel<tf.Tensor[]>('LoraLinearBackward', lora, needs), /weight: expected float32 \[N = 2, K = 2\], got float32 \[2\]/) // biome-ignore format: one line
  })

  it('of cached attention: no heads, a negative length, a full cache', () => {
    const of = (...shape: number[]) => tf.ones(shape)
    const call = (numHeads: number, pastLength: number) => () =>
      runKernel<tf.Tensor>(
        'CachedAttention',
        {
          q: of(1, 2, 4),
          k: of(1, 2, 4),
          v: of(1, 2, 4),
          cos: of(1, 1, 2, 4),
          sin: of(1, 1, 2, 4),
          key: of(1, 1, 8, 4),
          value: of(1, 1, 8, 4)
        },
        { scale: 1, numHeads, numKeyValueHeads: 1, pastLength }
      )
    assert.deepEqual(tf.tidy(call(1, 6)).shape, [1, 2, 4])
    shapeError(call(0, 0), /^CachedAttention: .*q/)
    shapeError(call(1, -1), /pastLength: expected a whole number from 0 on, got -1/)
    shapeError(call(1, 7), /S of at most C, got S = 9, C = 8/)
  })

  it('backward passes without rows or keys give zeros', () => {
    const zeros = (x: tf.Tensor | undefined) => assert.ok(x!.dataSync().every((value) => value === 0))
    const needs = { needsX: true, needsWeight: true, needsBias: true }
    tf.tidy(() => {
      const linear = { dy: tf.ones([0, 2]), x: tf.ones([0, 3]), weight: tf.ones([2, 3]) }
      const [, weight, bias] = runKernel<tf.Tensor[]>('LinearBackward', linear, needs)
      assert.deepEqual([weight!.shape, bias!.shape], [[2, 3], [2]])
      zeros(weight)
      zeros(bias)
      const none = tf.ones([1, 1, 0, 4])
      const attention = { dy: tf.ones([1, 1, 3, 4]), q: tf.ones([1, 1, 3, 4]), k: none, v: none }
      zeros(runKernel<tf.Tensor[]>('AttentionBackward', attention, { scale: 1 })[0])
    })
  })

  it('with labels that are neither -100 nor in the vocabulary are an error', () => {
    const losses = (label: number) => () =>
      runKernel<tf.Tensor>('CrossEntropy', { logits: tf.ones([1, 4]), labels: tf.tensor1d([label], 'int32') }, {})
    assert.equal(tf.tidy(losses(-100)).dataSync()[0], 0)
    for (const label of [-3, -1, 4, 2 ** 31 - 1])
      assert.throws(() => tf.tidy(losses(label)), /labels: -?\d+ is not in \[0, 4\), nor -100/)
  })
})

describe('empty tensors give what the composition gives', () => {
  before(async () => void (await selectEngine()))

  /** The shape and values of a result, or that there is none. */
  const outcome = (f: () => tf.Tensor): unknown => {
    try {
      return tf.tidy(() => {
        const y = f()
        return { shape: y.shape, values: Array.from(y.dataSync()) }
      })
    } catch {
      return 'an error'
    }
  }
  const of = <R extends tf.Rank>(...shape: number[]) => tf.ones(shape as tf.ShapeMap[R]) as tf.Tensor<R>
  const cases: Readonly<Record<string, () => tf.Tensor>> = {
    'a linear layer of no rows': () => affine(of(0, 3), of<tf.Rank.R2>(2, 3), of<tf.Rank.R1>(2)),
    'a linear layer of width 0': () => affine(of(2, 0), of<tf.Rank.R2>(3, 0), of<tf.Rank.R1>(3)),
    'a linear layer to width 0': () => affine(of(2, 3), of<tf.Rank.R2>(0, 3)),
    'layer norm of width 0': () => layerNorm(0, 1e-5).apply({ weight: of<tf.Rank.R1>(0), bias: of<tf.Rank.R1>(0) })(of(2, 0)),
    'layer norm of no rows': () => layerNorm(3, 1e-5).apply({ weight: of<tf.Rank.R1>(3), bias: of<tf.Rank.R1>(3) })(of(0, 3)),
    'RMS norm of width 0': () => rmsNorm(0, 1e-5).apply({ weight: of<tf.Rank.R1>(0) })(of(2, 0)),
    'RMS norm of no rows': () => rmsNorm(3, 1e-5).apply({ weight: of<tf.Rank.R1>(3) })(of(0, 3)),
    'rotary positions of width 0': () => applyRope(of<tf.Rank.R4>(1, 1, 2, 0), { cos: of<tf.Rank.R4>(1, 1, 2, 0), sin: of<tf.Rank.R4>(1, 1, 2, 0) }), // biome-ignore format: one line
    'rotary positions of no batch': () => applyRope(of<tf.Rank.R4>(0, 1, 2, 4), { cos: of<tf.Rank.R4>(1, 1, 2, 4), sin: of<tf.Rank.R4>(1, 1, 2, 4) }), // biome-ignore format: one line
    'attention of no batch': () => attend(of<tf.Rank.R4>(0, 2, 3, 4), of<tf.Rank.R4>(0, 2, 3, 4), of<tf.Rank.R4>(0, 2, 3, 4), 1),
    'attention of no heads': () => attend(of<tf.Rank.R4>(1, 0, 3, 4), of<tf.Rank.R4>(1, 0, 3, 4), of<tf.Rank.R4>(1, 0, 3, 4), 1),
    'attention of no key heads': () => attend(of<tf.Rank.R4>(1, 2, 3, 4), of<tf.Rank.R4>(1, 0, 3, 4), of<tf.Rank.R4>(1, 0, 3, 4), 1), // biome-ignore format: one line
    'attention of no keys': () => attend(of<tf.Rank.R4>(1, 2, 3, 4), of<tf.Rank.R4>(1, 2, 0, 4), of<tf.Rank.R4>(1, 2, 0, 4), 1),
    'attention of no queries': () =>
      attend(of<tf.Rank.R4>(1, 2, 0, 4), of<tf.Rank.R4>(1, 2, 3, 4), of<tf.Rank.R4>(1, 2, 3, 4), 1),
    'merged attention of no positions': () => attendMerged(of<tf.Rank.R3>(1, 0, 4), of<tf.Rank.R3>(1, 0, 4), of<tf.Rank.R3>(1, 0, 4), 2, 1), // biome-ignore format: one line
    'a scaled residual of no rows': () => residual(of(0, 3), of(0, 3), of<tf.Rank.R1>(3)),
    'losses of no rows': () => tokenLosses(of<tf.Rank.R2>(0, 3), tf.tensor1d([], 'int32')),
    ...Object.fromEntries(activationNames.map((name) => [`${name} of no entries`, () => activations[name](of(0, 3))])),
    'a gate of no entries': () => gated('silu', of(2, 0), of(2, 0))
  }
  for (const [title, f] of Object.entries(cases))
    it(title, () =>
      assert.deepEqual(
        outcome(f),
        withoutKernels(() => outcome(f))
      )
    )
})
