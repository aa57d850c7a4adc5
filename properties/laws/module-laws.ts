import assert from 'node:assert/strict'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { valueAndGrad } from '../../lib/autograd/grad.js'
import type { Module } from '../../lib/module.js'
import { declarations, fromStateDict, initParams, namedParameters, stateDict } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { randomParams, randomTensor, seed } from '../arbitraries/tensor.js'
import { check } from './check.js'
import { assertClose } from './close.js'
import { assertGradient } from './gradient.js'

/** A module, and the shapes of an input and of its output; the first axis is the batch. */
export interface ModuleCase<P, F> {
  readonly module: Module<P, F>
  readonly input: readonly number[]
  readonly output: readonly number[]
}

const shapesOf = (tree: ReadonlyArray<readonly [string, { readonly shape: readonly number[] }]>) =>
  tree.map(([key, { shape }]) => [key, shape] as const)

/**
 * The laws of every module, one test each, on generated configurations; `caseOf` builds the module of a configuration. `run` calls the
 * forward on a tensor and returns the output tensor; it must create no other tensor.
 */
export const moduleLaws = <C, P, F>(
  name: string,
  configs: fc.Arbitrary<C>,
  caseOf: (config: C) => ModuleCase<P, F>,
  run: (forward: F, x: tf.Tensor) => tf.Tensor
): void => {
  const samples = fc.record({ config: configs, seed })
  describe(`${name}: a module`, () => {
    it('declares its parameters, by key and shape', () =>
      check(configs, (config) => {
        const { module } = caseOf(config)
        assert.deepEqual(shapesOf(namedParameters(initParams(module))), shapesOf(declarations(module)))
      }))

    it('reads the state dict of its parameters', () =>
      check(configs, (config) => {
        const { module } = caseOf(config)
        const params = initParams(module)
        assert.deepEqual(fromStateDict(module)(stateDict(params)), E.right(params))
      }))

    it('returns the declared shape, and leaves no other tensor behind', () =>
      check(samples, ({ config, seed }) => {
        const { module, input, output } = caseOf(config)
        const [forward, x] = [module.apply(randomParams(module, seed)), randomTensor(input, seed)]
        const before = tf.memory().numTensors
        assert.deepEqual(run(forward, x).shape, output)
        assert.equal(tf.memory().numTensors, before + 1)
      }))

    it('computes the rows of a batch independently', () =>
      check(samples, ({ config, seed }) => {
        const { module, input } = caseOf(config)
        const forward = module.apply(randomParams(module, seed))
        const [x, other] = [randomTensor(input, seed), randomTensor(input, seed + 1)]
        const together = run(forward, tf.concat([x, other]))
        assertClose(together, tf.concat([run(forward, x), run(forward, other)]))
      }))

    it('has a gradient with the structure of its parameters, equal to finite differences of the loss', () =>
      check(samples, ({ config, seed }) => {
        const { module, input } = caseOf(config)
        hasGradient(module, run, randomTensor(input, seed), seed)
      }))
  })
}

/** The module's gradient, by `assertGradient`, of a loss that weighs every output differently. */
const hasGradient = <P, F>(
  module: Module<P, F>,
  run: (forward: F, x: tf.Tensor) => tf.Tensor,
  x: tf.Tensor,
  seed: number
): void => {
  if (declarations(module).length === 0) return
  const params = randomParams(module, seed)
  const target = randomTensor(run(module.apply(params), x).shape, seed + 1)
  const loss = (p: P) => run(module.apply(p), x).mul(target).mean() as tf.Scalar
  const { grads } = valueAndGrad(loss)(params)
  assert.deepEqual(shapesOf(namedParameters(grads)), shapesOf(namedParameters(params)))
  assertGradient(loss, params, grads, seed)
}
