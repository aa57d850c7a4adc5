import assert from 'node:assert/strict'
import fc from 'fast-check'
import { accumulate, accumulateEach, valueAndGrad } from '../../../lib/autograd/grad.js'
import { combine, namedParameters, partition } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { count, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'

const params = () => ({ a: tf.tensor1d([2, 3]), list: [{ b: tf.scalar(5) }], unused: tf.tensor1d([1, 1, 1]) })
type Params = ReturnType<typeof params>
const loss = ({ a, list }: Params) => a.square().sum().mul(list[0]!.b) as tf.Scalar

describe('valueAndGrad', () => {
  it('gives the loss and its gradient at every leaf; zeros if the loss does not depend on a leaf', () =>
    tf.tidy(() => {
      const { value, grads } = valueAndGrad(loss)(params())
      assert.equal(value.dataSync()[0], 65)
      assert.deepEqual([...grads.a.dataSync()], [20, 30])
      assert.deepEqual([...grads.list[0]!.b.dataSync()], [13])
      assert.deepEqual([...grads.unused.dataSync()], [0, 0, 0])
    }))

  it('of a part of a tree has that part’s structure; the frozen rest is combined inside the loss', () =>
    tf.tidy(() => {
      const [trained, frozen] = partition((path) => path === 'a')(params())
      const { grads } = valueAndGrad((p: typeof trained) => loss(combine<Params>(p, frozen)))(trained)
      assert.deepEqual([...grads.a!.dataSync()], [20, 30])
      assert.equal(grads.list[0]!.b, undefined)
    }))

  it('creates the loss and one gradient for each leaf, and leaves no other tensor', () =>
    tf.tidy(() => {
      const p = params()
      const before = tf.memory().numTensors
      valueAndGrad(loss)(p)
      assert.equal(tf.memory().numTensors, before + 4)
    }))

  it('passes through copies', () =>
    tf.tidy(() => {
      const { grads } = valueAndGrad((x: tf.Tensor) => x.clone().clone().square().add(x.clone()).sum() as tf.Scalar)(
        tf.tensor1d([2, 3])
      )
      assert.deepEqual([...grads.dataSync()], [5, 7])
    }))

  it('rejects a loss that is not a scalar', () => {
    const vector = (p: Params) => p.a as tf.Tensor as tf.Scalar
    tf.tidy(() => assert.throws(() => valueAndGrad(vector)(params()), /the loss must be a scalar, got shape \[2\]/))
  })
})

describe('accumulate', () => {
  type Weights = { readonly w: tf.Tensor2D }
  const loss = (x: tf.Tensor2D) => (p: Weights) => tf.matMul(x, p.w).square().sum(1).mean() as tf.Scalar
  const batches = fc.record({ sizes: fc.array(count(4), { minLength: 1, maxLength: 4 }), seed })

  it('equals one large batch, in any order, and leaves only the sum', () =>
    check(batches, ({ sizes, seed }) => {
      const params = { w: randomTensor<tf.Tensor2D>([3, 2], seed) }
      const parts = sizes.map((n, i) => randomTensor<tf.Tensor2D>([n, 3], seed + i + 1))
      const run = (xs: readonly tf.Tensor2D[]) => accumulate(xs, (x) => x.shape[0], loss)(params)
      const before = tf.memory().numTensors
      const sum = run(parts)
      assert.equal(tf.memory().numTensors - before, 2)
      const big = valueAndGrad(loss(tf.concat(parts)))(params)
      for (const result of [sum, run([...parts].reverse())]) {
        assertClose(result.value, big.value)
        assertClose(result.grads.w, big.grads.w)
      }
    }))

  it('each gradient that is handed over is bit for bit that of the tree, those of the last layers first, and no tensor is left', () =>
    check(batches, ({ sizes, seed }) => {
      const params = {
        unused: tf.zeros([2]),
        first: randomTensor<tf.Tensor2D>([3, 3], seed),
        shared: randomTensor<tf.Tensor2D>([3, 3], seed + 1),
        last: randomTensor<tf.Tensor2D>([3, 2], seed + 2)
      }
      const parts = sizes.map((n, i) => randomTensor<tf.Tensor2D>([n, 3], seed + i + 3))
      const layers = (x: tf.Tensor2D) => (p: typeof params) => {
        const inner = tf.matMul(tf.matMul(tf.matMul(x, p.shared), p.first).tanh(), p.shared)
        return tf.matMul<tf.Tensor2D>(inner, p.last).square().sum(1).mean() as tf.Scalar
      }
      const total = 2 * sizes.reduce((a, b) => a + b) // another worker has the other half
      const weightOf = (x: tf.Tensor2D) => x.shape[0]
      const whole = accumulate(parts, weightOf, layers, total)(params)
      const before = tf.memory().numTensors
      const taken = new Map<string, tf.Tensor>()
      const value = accumulateEach(parts, weightOf, layers, total, (path, g) => taken.set(path, tf.keep(g)))(params)
      assert.deepEqual([...taken.keys()], ['last', 'first', 'shared', 'unused'])
      assert.deepEqual(value.dataSync(), whole.value.dataSync())
      for (const [path, g] of namedParameters(whole.grads)) assert.deepEqual(taken.get(path)!.dataSync(), g.dataSync(), path)
      tf.dispose([value, ...taken.values()])
      assert.equal(tf.memory().numTensors, before)
    }))

  it('rejects batches without weight', () => {
    const none = (): never => assert.fail('not called')
    assert.throws(() => accumulate([1, 2], () => 0, none), /the weights of 2 batches sum to 0/)
    assert.throws(() => accumulate([], () => 1, none), /the weights of 0 batches sum to 0/)
  })
})
