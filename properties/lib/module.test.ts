import assert from 'node:assert/strict'
import { identity, module, repeat } from '../../lib/module.js'
import { ones, zeros } from '../../lib/nn/init.js'
import { namedParameters } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'

const scale = (n: number) => module({ weight: ones(n) }, (self) => (x: tf.Tensor1D) => x.mul<tf.Tensor1D>(self.weight))

const stack = module(
  { first: scale(2), layers: repeat(3, () => scale(2)), nested: { bias: zeros<tf.Rank.R1>(2), none: identity } },
  (self) => (x: tf.Tensor1D) =>
    self.nested.none(self.layers.reduce((h, layer) => layer(h), self.first(x)).add<tf.Tensor1D>(self.nested.bias))
)

describe('module', () => {
  const two = () => tf.tensor1d([2, 2])
  const params = () => ({
    first: { weight: two() },
    layers: [1, 2, 3].map(() => ({ weight: two() })),
    nested: { bias: tf.tensor1d([1, 0]), none: {} }
  })

  it('the forward receives parameters as tensors, modules as functions, and lists and records of both', () =>
    tf.tidy(() =>
      assert.deepEqual(
        [
          ...stack
            .apply(params())(tf.tensor1d([1, 3]))
            .dataSync()
        ],
        [17, 48]
      )
    ))

  it('a forward reads the applied parameters, and stores none', () =>
    tf.tidy(() => {
      const p = params()
      const doubled = { ...p, first: { weight: tf.tensor1d([4, 4]) } }
      const x = tf.tensor1d([1, 3])
      assert.deepEqual([...stack.apply(doubled)(x).dataSync()], [33, 96])
      assert.deepEqual([...stack.apply(p)(x).dataSync()], [17, 48])
      assert.equal(namedParameters(p).length, 5)
    }))

  it('intermediate tensors are disposed, also in the forward’s function properties', () =>
    tf.tidy(() => {
      const twice = (x: tf.Tensor1D) => x.add(1).add(1)
      const f = module({}, () => Object.assign((x: tf.Tensor1D) => x.mul(2).mul(2), { twice })).apply({})
      const x = tf.tensor1d([1])
      const before = tf.memory().numTensors
      assert.deepEqual([...f(x).dataSync(), ...f.twice(x).dataSync()], [4, 3])
      assert.equal(tf.memory().numTensors, before + 2)
    }))

  it('a forward that throws leaves nothing behind', () =>
    tf.tidy(() => {
      const f = module({}, () => (x: tf.Tensor1D) => x.add(1).reshape([7])).apply({})
      const x = tf.tensor1d([1])
      const before = tf.memory().numTensors
      assert.throws(() => f(x))
      assert.equal(tf.memory().numTensors, before)
    }))
})
