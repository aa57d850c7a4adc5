import assert from 'node:assert/strict'
import { checkpointed } from '../../lib/autograd/checkpointing.js'
import { module } from '../../lib/module.js'
import { ones } from '../../lib/nn/init.js'
import { declarations, initParams } from '../../lib/params.js'
import { replaceModules } from '../../lib/replace-modules.js'
import { tf } from '../../lib/tf.js'

/** `x + n` for each of `n` ones. */
const add = (n: number) =>
  module(
    { weight: ones(n) },
    (self) =>
      (x: tf.Scalar): tf.Scalar =>
        x.add(self.weight.sum())
  )
const net = module(
  { first: add(1), layers: [checkpointed(add(2)), checkpointed(module({ inner: add(3) }, (self) => self.inner))] },
  (self) =>
    (x: tf.Scalar): tf.Scalar =>
      self.layers.reduce((y, layer) => layer(y), self.first(x))
)

const resultOf = (m: typeof net): number => tf.tidy(() => m.apply(initParams(m))(tf.scalar(0)).dataSync()[0]!)

describe('replaceModules', () => {
  it('without replacements nothing changes', () => {
    assert.equal(resultOf(replaceModules(net, {})), resultOf(net))
    assert.deepEqual(
      declarations(replaceModules(net, {})).map(([path]) => path),
      declarations(net).map(([path]) => path)
    )
  })

  it('a module at any path is replaced, with its parameters', () => {
    const changed = replaceModules(net, { first: add(10), 'layers.1.inner': add(100) })
    assert.equal(resultOf(changed), 112)
    assert.deepEqual(
      declarations(changed).map(([path, { shape }]) => [path, ...shape]),
      [
        ['first.weight', 10],
        ['layers.0.weight', 2],
        ['layers.1.inner.weight', 100]
      ]
    )
  })

  it('a path without a module is refused by name', () => {
    for (const path of ['second', 'layers.2', 'first.weight', 'layers', 'layers.1.inner.weight.x'])
      assert.throws(() => replaceModules(net, { [path]: add(1) }), RangeError)
  })
})
