import assert from 'node:assert/strict'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { valueAndGrad } from '../../lib/autograd/grad.js'
import type { Module } from '../../lib/module.js'
import { buildParams, declarations, fromStateDict, initParams, namedParameters, stateDict } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { randomParams, randomTensor, seed } from '../arbitraries/tensor.js'
import { check } from './check.js'
import { assertClose } from './close.js'

/** A module and the shapes of an input and of what it becomes; the first axis is the batch. */
export interface ModuleCase<P, F> {
  readonly module: Module<P, F>
  readonly input: readonly number[]
  readonly output: readonly number[]
}

const shapesOf = (tree: ReadonlyArray<readonly [string, { readonly shape: readonly number[] }]>) =>
  tree.map(([key, { shape }]) => [key, shape] as const)

/**
 * The laws that every module obeys, a test each, on drawn configurations; `caseOf` is the module of one. `run` says how to call
 * the forward where it is more than a function of one tensor; it must make no tensor but its result.
 */
export const moduleLaws = <C, P, F>(
  name: string,
  configs: fc.Arbitrary<C>,
  caseOf: (config: C) => ModuleCase<P, F>,
  run: (forward: F, x: tf.Tensor) => tf.Tensor
): void => {
  const drawn = fc.record({ config: configs, seed })
  describe(`${name}: a module`, () => {
    it('declares its parameters, by key and shape', () =>
      check(configs, (config) => {
        const { module } = caseOf(config)
        assert.deepEqual(shapesOf(namedParameters(initParams(module))), shapesOf(declarations(module)))
      }))

    it('takes back the parameters that it gave', () =>
      check(configs, (config) => {
        const { module } = caseOf(config)
        const params = initParams(module)
        assert.deepEqual(fromStateDict(module)(stateDict(params)), E.right(params))
      }))

    it('gives the declared shape, and leaves no other tensor behind', () =>
      check(drawn, ({ config, seed }) => {
        const { module, input, output } = caseOf(config)
        const [forward, x] = [module.apply(randomParams(module, seed)), randomTensor(input, seed)]
        const before = tf.memory().numTensors
        assert.deepEqual(run(forward, x).shape, output)
        assert.equal(tf.memory().numTensors, before + 1)
      }))

    it('treats each member of a batch alone', () =>
      check(drawn, ({ config, seed }) => {
        const { module, input } = caseOf(config)
        const forward = module.apply(randomParams(module, seed))
        const [x, other] = [randomTensor(input, seed), randomTensor(input, seed + 1)]
        const together = run(forward, tf.concat([x, other]))
        assertClose(together, tf.concat([run(forward, x), run(forward, other)]))
      }))

    it('has a gradient of the structure of its parameters, the slope of its loss', () =>
      check(drawn, ({ config, seed }) => {
        const { module, input } = caseOf(config)
        gradientIsSlope(module, run, randomTensor(input, seed), seed)
      }))
  })
}

/** The gradient's length against the difference of losses a small step along it to either side. */
const gradientIsSlope = <P, F>(
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
  const leaves = namedParameters(grads)
  assert.deepEqual(shapesOf(leaves), shapesOf(namedParameters(params)))
  const [dict, along] = [stateDict(params), stateDict(grads)]
  const length = Math.sqrt(leaves.reduce((sum, [, g]) => sum + g.square().sum().dataSync()[0]!, 0))
  if (length < 1e-6) return
  const lossAt = (step: number): number =>
    loss(buildParams(module, (key) => dict[key]!.add(along[key]!.mul(step / length)))).dataSync()[0]!
  // several steps: a large one may reach where another expert is chosen, a small one meets the end of float32
  const slopes = [1e-2, 3e-3, 1e-3].map((step) => (lossAt(step) - lossAt(-step)) / (2 * step))
  const agrees = slopes.some((slope) => Math.abs(slope - length) <= 0.03 * length + 1e-4)
  assert.ok(agrees, `the loss rises by ${slopes} a unit, the gradient says ${length}`)
}
