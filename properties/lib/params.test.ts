import assert from 'node:assert/strict'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { module } from '../../lib/module.js'
import { linear } from '../../lib/nn/linear.js'
import {
  combine,
  countParameters,
  declarations,
  disposeParams,
  fromStateDict,
  initParams,
  mapParams,
  namedParameters,
  partition,
  stateDict
} from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { count } from '../arbitraries/tensor.js'
import { check } from '../laws/check.js'

const net = (layers: number, width: number) =>
  module(
    { in: linear(2, width), layers: Array.from({ length: layers }, () => ({ proj: linear(width, width, { bias: false }) })) },
    () => (x: tf.Tensor2D) => x
  )
const nets = fc.record({ layers: fc.nat(3), width: count(3) }).map(({ layers, width }) => ({ layers, width }))

describe('params', () => {
  it('keys are dotted paths, lists by index', () =>
    assert.deepEqual(
      declarations(net(2, 3)).map(([key, { shape }]) => `${key} ${shape}`),
      ['in.weight 3,2', 'in.bias 3', 'layers.0.proj.weight 3,3', 'layers.1.proj.weight 3,3']
    ))

  it('countParameters equals the size of the initial parameters', () =>
    check(nets, ({ layers, width }) => {
      const module = net(layers, width)
      const made = namedParameters(initParams(module)).reduce((n, [, leaf]) => n + leaf.size, 0)
      assert.equal(countParameters(module), made)
    }))

  it('initial parameters are determined by the seed', () =>
    check(nets, ({ layers, width }) => {
      const numbers = (seed: number) => namedParameters(initParams(net(layers, width), seed)).map(([, t]) => [...t.dataSync()])
      assert.deepEqual(numbers(1), numbers(1))
      assert.notDeepEqual(numbers(1), numbers(2))
    }))

  it('mapping with the identity is the identity, and mapping twice is mapping once by both', () =>
    check(nets, ({ layers, width }) => {
      const params = initParams(net(layers, width))
      const [same, twice] = [mapParams((leaf) => leaf)(params), mapParams((leaf) => leaf.mul(2))]
      assert.deepEqual(same, params)
      const numbers = (tree: unknown) => namedParameters(tree).map(([key, t]) => [key, ...t.dataSync()])
      assert.deepEqual(numbers(twice(twice(params))), numbers(mapParams((leaf) => leaf.mul(2).mul(2))(params)))
    }))

  it('a tree is partitioned by path and combined again, either way round', () =>
    check(fc.tuple(nets, fc.func(fc.boolean())), ([{ layers, width }, chosen]) => {
      const params = initParams(net(layers, width))
      const [some, rest] = partition((path) => chosen(path))(params)
      assert.deepEqual(combine(some, rest), params)
      assert.deepEqual(combine(rest, some), params)
      for (const [path, leaf] of namedParameters(some)) assert.equal(leaf !== undefined, chosen(path))
      for (const [path, leaf] of namedParameters(rest)) assert.equal(leaf === undefined, chosen(path))
    }))

  it('all missing keys, unexpected keys and shape mismatches are reported together', () =>
    check(nets, ({ layers, width }) => {
      const module = net(layers, width)
      const { 'in.bias': _, ...dict } = stateDict(initParams(module))
      const wrongDict = { ...dict, 'in.weight': tf.zeros([width, 5]), extra: tf.zeros([1]) }
      const result = fromStateDict(module)(wrongDict)
      assert.ok(E.isLeft(result))
      assert.deepEqual(
        result.left.map(({ _tag, key }) => `${_tag} ${key}`),
        ['MissingKey in.bias', 'UnexpectedKey extra', 'ShapeMismatch in.weight']
      )
    }))

  it('disposeParams disposes every tensor of the tree', () => {
    const before = tf.memory().numTensors
    disposeParams(initParams(net(2, 2)))
    assert.equal(tf.memory().numTensors, before)
  })
})
