import assert from 'node:assert/strict'
import { valueAndGrad } from '../../../lib/autograd/grad.js'
import { vjp } from '../../../lib/autograd/tape.js'
import { module, repeat } from '../../../lib/module.js'
import { linear } from '../../../lib/nn/linear.js'
import { disposeParams, initParams, namedParameters } from '../../../lib/params.js'
import { modulePaths } from '../../../lib/tap/module-paths.js'
import { record } from '../../../lib/tap/record.js'
import { tap } from '../../../lib/tap/tap.js'
import { tf } from '../../../lib/tf.js'
import { decoderFor } from '../../../models/decoders/index.js'
import { decoderConfig, type ModelType } from '../../arbitraries/decoder-config.js'
import { randomParams, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'

/** `layers[1](layers[0](x))`, then the mean. */
const twoLayers = module({ layers: repeat(2, () => linear(3, 3)), head: { out: linear(3, 1) } }, (self) => (x: tf.Tensor2D) => {
  const h = self.layers.reduce((state, layer) => layer(state), x)
  return self.head.out(h)
})
const params = initParams(twoLayers, 3)
const input = () =>
  tf.tensor2d([
    [1, 2, 3],
    [4, 5, 6]
  ])
const modelTypes: readonly ModelType[] = ['qwen2', 'qwen3', 'llama', 'phi3', 'qwen3_moe', 'gpt_oss']

describe('tap', () => {
  let tensors = 0
  before(() => {
    tensors = tf.memory().numTensors
  })
  after(() => {
    assert.equal(tf.memory().numTensors, tensors, 'no tensor is left')
    disposeParams(params)
  })

  it('modules have the paths of the checkpoint; lists and records have none', () =>
    assert.deepEqual(modulePaths(twoLayers), ['layers.0', 'layers.1', 'head.out']))

  for (const modelType of modelTypes)
    it(`${modelType}: a tap that returns its input changes no bit, with and without a cache; the parameters stay`, () =>
      check(
        decoderConfig(modelType).chain((c) => seed.map((s) => ({ c, s }))),
        ({ c, s }) => {
          const decoder = decoderFor(c)
          const weights = randomParams(decoder, s)
          const x = randomTensor<tf.Tensor3D>([2, 5, c.hiddenSize], s)
          const next = randomTensor<tf.Tensor3D>([2, 1, c.hiddenSize], s + 1)
          const run = (of: typeof decoder) => {
            const forward = of.apply(weights)
            const first = forward(x, { useCache: true })
            return [first.hidden, forward(next, { useCache: true, cache: first.cache }).hidden].map((h) => h.dataSync())
          }
          const expected = run(decoder)
          const tapped = [...modulePaths(decoder).filter((path) => !/layers\.[1-9]/.test(path) && path !== 'embed_tokens'), '**']
          for (const path of tapped.filter((path) => !/experts\.\d/.test(path)))
            assert.deepEqual(run(tap(decoder, { [path]: (y) => y })), expected, path)
        },
        2
      ))

  it('recorded layers are what outputHiddenStates gives', () =>
    check(decoderConfig('qwen2'), (c) => {
      const decoder = decoderFor(c)
      const recorder = record(['layers.*', 'norm'])
      const forward = tap(decoder, recorder).apply(randomParams(decoder, 5))
      const { hiddenStates } = forward(randomTensor([1, 4, c.hiddenSize], 6), { outputHiddenStates: true })
      const recorded = [
        ...Array.from({ length: c.numHiddenLayers - 1 }, (_, i) => recorder.last(`layers.${i}`)),
        recorder.last('norm')
      ]
      assert.deepEqual(
        recorded.map((state) => state.dataSync()),
        hiddenStates!.slice(1).map((state) => state.dataSync())
      )
      recorder.dispose()
    }))

  it('taps compose in order: of one call in the order of the record, of two calls the first call first', () =>
    tf.tidy(() => {
      const plain = twoLayers.apply(params)(input())
      const once = tap(twoLayers, { 'head.out': (y) => y.add(1), out: (y) => y.mul(3) })
      const twice = tap(tap(twoLayers, { 'head.out': (y) => y.add(1) }), { out: (y) => y.mul(3) })
      const expected = plain.add(1).mul(3).dataSync()
      for (const tapped of [once, twice]) assert.deepEqual(tapped.apply(params)(input()).dataSync(), expected)
    }))

  it('a tap gets path and inputs, and can call the module with others', () =>
    tf.tidy(() => {
      const paths: string[] = []
      const tapped = tap(twoLayers, {
        'layers.*': (_, { path, inputs, forward }) => {
          paths.push(path)
          return forward(inputs[0].mul(0))
        }
      })
      const { bias } = params.layers[1]! as { bias: tf.Tensor1D }
      const y = tapped.apply(params)(input())
      assert.deepEqual(paths, ['layers.0', 'layers.1'])
      const onlyBias = tap(twoLayers, { 'layers.1': (h) => h.zerosLike().add(bias) }).apply(params)(input())
      assert.deepEqual(y.dataSync(), onlyBias.dataSync())
    }))

  it('layers of a decoder may return their input, or a tensor of another run, which stay alive', () =>
    check(decoderConfig('qwen2'), (c) => {
      const decoder = decoderFor(c)
      const weights = randomParams(decoder, 5)
      const x = randomTensor<tf.Tensor3D>([1, 4, c.hiddenSize], 6)
      const other = randomTensor<tf.Tensor3D>([1, 4, c.hiddenSize], 7)
      const skipped = tap(decoder, { 'layers.*': (_, { inputs }) => inputs[0] }).apply(weights)(x)
      const plain = tap(decoder, { norm: (_, { inputs: [h] }) => h.mul(1) })
      const last = tap(plain, { [`layers.${c.numHiddenLayers - 1}`]: () => other, 'layers.0': () => other }).apply(weights)(x)
      assert.deepEqual(last.hidden.dataSync(), other.dataSync())
      const normed = tap(decoder, { 'layers.*': () => x }).apply(weights)(x)
      assert.deepEqual(skipped.hidden.dataSync(), normed.hidden.dataSync())
    }))

  it('a pattern without a match is an error that names it, with near matches', () => {
    assert.throws(() => tap(twoLayers, { 'layer.*': (y) => y }), {
      name: 'RangeError',
      message: 'tap: no module matches layer.*; near matches: layers.*, head.out'
    })
    assert.throws(() => tap(twoLayers, record(['head.output'])), /no module matches head.output; near matches: head.out/)
    assert.throws(() => tap(twoLayers, [[/layers\..*\.x/, (y) => y]]), /no module matches layers/)
  })

  it('a result of another shape or kind is an error with the path', () =>
    tf.tidy(() => {
      const shape = tap(twoLayers, { 'layers.0': (y) => y.slice([0, 0], [1, 3]) }).apply(params)
      assert.throws(() => shape(input()), /tap: layers.0: expected float32 \[2,3\], got float32 \[1,3\]/)
      const nothing = tap(twoLayers, { 'layers.0': () => undefined as never }).apply(params)
      assert.throws(() => nothing(input()), /tap: layers.0: expected a tensor \[2,3\], got undefined; return y to change nothing/)
    }))

  it('gradients flow through taps, to parameters and to tensors of the tap', () =>
    tf.tidy(() => {
      const loss = (of: typeof twoLayers) => (p: typeof params) => of.apply(p)(input()).sum() as tf.Scalar
      const doubled = valueAndGrad(loss(tap(twoLayers, { 'head.out': (y) => y.mul(2) })))(params)
      const plain = valueAndGrad(loss(twoLayers))(params)
      const expected = new Map(namedParameters(plain.grads))
      for (const [path, gradient] of namedParameters(doubled.grads))
        assert.deepEqual(gradient.dataSync(), expected.get(path)!.mul(2).dataSync(), path)
      const shift = tf.zeros([2, 3])
      const tapped = tap(twoLayers, { 'layers.1': (y) => y.add(shift) })
      const { grads } = vjp(
        () => [loss(tapped)(params)],
        [shift],
        ([value]) => [tf.onesLike(value!)]
      )
      const head = params.head.out.weight as tf.Tensor2D
      assert.deepEqual(grads[0]!.dataSync(), tf.tile(head, [2, 1]).dataSync())
    }))
})
