import assert from 'node:assert/strict'
import { nextLossScale } from '../../../generation/train/loss-scale.js'
import { initialState, takeStep } from '../../../generation/train/training-loop.js'
import { affine } from '../../../lib/nn/linear.js'
import { adamW } from '../../../lib/optim/adamw.js'
import { disposeParams } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { withTensorflowKernels } from '../../lib/engines/tensorflow-kernels/with-tensorflow-kernels.js'

interface Weights {
  readonly weight: tf.Tensor2D
}

describe('training in 16 bits', () => {
  withTensorflowKernels()
  const optimizer = adamW({ learningRate: 0.02, weightDecay: 0 })
  const target = () => tf.randomNormal<tf.Rank.R2>([6, 8], 0, 1, 'float32', 3)

  /** Losses and gradient norms of `steps` steps towards a linear map, whose loss is `factor` times as large. */
  const run = (precision: 'float32' | 'bfloat16' | 'float16', steps: number, factor = 1) => {
    const loss = ({ weight }: Weights, x: tf.Tensor2D) => {
      const difference = affine(x, weight).sub(tf.matMul(x, target(), false, true))
      return { loss: difference.square().mean().mul<tf.Scalar>(factor) }
    }
    let state = initialState<Weights, ReturnType<typeof optimizer.init>>({ weight: tf.zeros<tf.Rank.R2>([6, 8]) }, optimizer)
    const reports = Array.from({ length: steps }, (_, i) => {
      const x = tf.randomNormal<tf.Rank.R2>([16, 8], 0, 1, 'float32', 10 + i)
      const { state: next, loss: value, gradNorm } = takeStep(state, [x], { loss, optimizer, precision, maxGradNorm: 1 })
      x.dispose()
      state = next
      return { loss: value, gradNorm, weight: state.params.weight.dataSync().slice(), scale: state.lossScale?.scale }
    })
    disposeParams([state.params, state.optimizer.first, state.optimizer.second])
    return reports
  }

  for (const [precision, tolerance] of [
    ['bfloat16', 2e-2],
    ['float16', 4e-3]
  ] as const)
    it(`${precision}: the losses of float32, but not bit for bit; no tensor is left`, () => {
      run(precision, 1)
      const before = tf.memory().numTensors
      const [ours, exact] = [run(precision, 20, 1 / 64), run('float32', 20, 1 / 64)] // small enough for the first loss scale
      assert.equal(tf.memory().numTensors, before)
      for (const [i, { loss, gradNorm }] of ours.entries()) {
        assert.ok(Math.abs(loss - exact[i]!.loss) <= tolerance * exact[i]!.loss, `step ${i}: ${loss}, ${exact[i]!.loss}`)
        assert.ok(Math.abs(gradNorm - exact[i]!.gradNorm) <= 2 * tolerance * exact[i]!.gradNorm)
      }
      assert.notEqual(ours[0]!.gradNorm, exact[0]!.gradNorm)
    })

  it('float16: gradients that overflow change no weights and halve the loss scale, until they fit', () => {
    const [first, ...others] = run('float16', 8, 4) // the gradient of the products exceeds 65504 at the first scales
    assert.equal(first!.gradNorm, Number.POSITIVE_INFINITY)
    assert.ok(Number.isFinite(first!.loss))
    assert.ok(first!.weight.every((w) => w === 0))
    assert.equal(first!.scale, 2 ** 15)
    const last = others.at(-1)!
    assert.ok(Number.isFinite(last.gradNorm) && last.weight.some((w) => w !== 0))
  })

  it('the loss scale doubles after 2000 steps without an overflow', () => {
    let scale = { scale: 8, goodSteps: 0 }
    for (let i = 0; i < 1999; i++) scale = nextLossScale(scale, true)
    assert.deepEqual(scale, { scale: 8, goodSteps: 1999 })
    assert.deepEqual(nextLossScale(scale, true), { scale: 16, goodSteps: 0 })
    assert.deepEqual(nextLossScale(scale, false), { scale: 4, goodSteps: 0 })
  })
})
