import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import {
  causalLoss,
  logProbabilities,
  type Reduction,
  reductionWeights,
  tokenLosses
} from '../../../../lib/nn/losses/cross-entropy.js'
import { tf } from '../../../../lib/tf.js'
import { count, randomTensor, seed } from '../../../arbitraries/tensor.js'
import { check } from '../../../laws/check.js'
import { assertClose } from '../../../laws/close.js'
import { layers, unpack } from '../../../reference/layers.js'

const reference = JSON.parse(readFileSync(new URL('../../../reference/losses.json', import.meta.url), 'utf8'))

describe('loss', () => {
  const { logits, labels, loss, gradient } = layers.losses
  const wanted = () => tf.tensor2d(labels, undefined, 'int32')

  it('causalLoss and its gradient are PyTorch’s, ignored labels left out', () =>
    tf.tidy(() => {
      const { value, grad } = tf.valueAndGrad((x) => causalLoss(x as tf.Tensor3D, wanted()))(unpack(logits))
      assertClose(value, tf.scalar(loss), 1e-6)
      assertClose(grad, unpack(gradient), 1e-6)
    }))

  it('a constant added to all logits of a position changes nothing', () =>
    check(seed, (seed) => {
      const shift = tf.randomUniform([2, 5, 1], -500, 500, 'float32', seed)
      const moved = causalLoss(unpack<tf.Tensor3D>(logits).add(shift), wanted())
      assert.ok(Math.abs(moved.dataSync()[0]! - loss) < 1e-3)
    }))

  for (const kind of ['token', 'sample', 'square'] as const satisfies readonly Reduction[])
    it(`reduced by ${kind}: weights, loss and gradient are PyTorch’s`, () =>
      tf.tidy(() => {
        const { logits, labels, reduced } = reference
        const weights = reductionWeights(labels, kind)
        assertClose(tf.tensor(weights as number[][]), tf.tensor(reduced[kind].weights), 1e-6)
        const ids = tf.tensor2d(labels, undefined, 'int32')
        const lossOf = (x: tf.Tensor) => causalLoss(x as tf.Tensor3D, ids, tf.tensor2d(weights as number[][]))
        const { value, grad } = tf.valueAndGrad(lossOf)(unpack(logits))
        assertClose(value, tf.scalar(reduced[kind].loss))
        assertClose(grad, unpack(reduced[kind].gradient))
      }))

  it('a packed row has the weights of its samples in separate rows', () => {
    const [a, b] = [
      [-100, 3, 4, 5],
      [-100, -100, 7]
    ] as const
    for (const kind of ['token', 'sample', 'square'] as const) {
      const [packed] = reductionWeights([[...a, ...b]], kind, [[0, 0, 0, 0, 1, 1, 1]])
      assert.deepEqual(packed, reductionWeights([a, b], kind).flat())
    }
  })

  it('computing in blocks of rows changes neither value nor gradient', () =>
    check(fc.record({ N: count(7), V: count(5, 2), most: count(12), seed }), ({ N, V, most, seed }) => {
      const logits = randomTensor<tf.Tensor2D>([N, V], seed)
      const labels = tf.tensor1d(Array.from({ length: N }, (_, i) => ((i + seed) % 3 === 0 ? -100 : (i * seed) % V)), 'int32') // biome-ignore format: one line
      const run = (maxLogits?: number) =>
        tf.valueAndGrad(
          (x) =>
            tokenLosses(x as tf.Tensor2D, labels, maxLogits)
              .square()
              .sum() as tf.Scalar
        )(logits)
      const [whole, blocks] = [run(), run(most)]
      assertClose(blocks.value, whole.value)
      assertClose(blocks.grad, whole.grad)
    }))

  it('logProbabilities sums the log-probabilities of the labels of each sample', () =>
    tf.tidy(() => {
      for (const { logits, policy } of reference.steps)
        assertClose(logProbabilities(unpack(logits), tf.tensor2d(reference.labels, undefined, 'int32')), tf.tensor1d(policy))
    }))

  it('refuses a label outside the vocabulary', () =>
    tf.tidy(() => {
      const run = (label: number) => tokenLosses(tf.zeros([1, 5]), tf.tensor1d([label], 'int32'))
      assert.throws(() => run(5), /labels: 5 is not in \[0, 5\), nor -100/)
      assert.throws(() => run(-1), /labels: -1 is not in/)
    }))
})
