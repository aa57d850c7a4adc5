import assert from 'node:assert/strict'
import { valueAndGrad } from '../../lib/grad.js'
import { combine, partition } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'

const params = () => ({ a: tf.tensor1d([2, 3]), list: [{ b: tf.scalar(5) }], unused: tf.tensor1d([1, 1, 1]) })
type Params = ReturnType<typeof params>
const loss = ({ a, list }: Params) => a.square().sum().mul(list[0]!.b) as tf.Scalar

describe('valueAndGrad', () => {
  it('gives the loss and its slope at every leaf; zeros where a leaf does not reach it', () =>
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

  it('leaves the loss and a gradient for each leaf behind, nothing else', () =>
    tf.tidy(() => {
      const p = params()
      const before = tf.memory().numTensors
      valueAndGrad(loss)(p)
      assert.equal(tf.memory().numTensors, before + 4)
    }))

  it('refuses a loss that is no scalar', () => {
    const vector = (p: Params) => p.a as tf.Tensor as tf.Scalar
    tf.tidy(() => assert.throws(() => valueAndGrad(vector)(params()), /the loss must be a scalar, got shape \[2\]/))
  })
})
