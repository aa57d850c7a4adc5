import assert from 'node:assert/strict'
import { checkpointed } from '../../../lib/autograd/checkpointing.js'
import { type ValueAndGrad, valueAndGrad } from '../../../lib/autograd/grad.js'
import { training } from '../../../lib/autograd/train-mode.js'
import { module, repeat } from '../../../lib/module.js'
import { dropout } from '../../../lib/nn/dropout.js'
import { linear } from '../../../lib/nn/linear.js'
import { adamW, clipFactor } from '../../../lib/optim/adamw.js'
import { combine, disposeParams, namedParameters, partition } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { randomParams, randomTensor } from '../../arbitraries/tensor.js'
import { assertClose } from '../../laws/close.js'

const D = 24
const layer = () =>
  module({ fc1: linear(D, 4 * D, { activation: 'gelu' }), fc2: linear(4 * D, D) }, (self) => (x: tf.Tensor2D): tf.Tensor2D => x.add(dropout(self.fc2(self.fc1(x))))) // biome-ignore format: one line
const deep = (n: number) =>
  module(
    { layers: repeat(n, () => checkpointed(layer())) },
    (self) => (x: tf.Tensor2D) => self.layers.reduce((h, layer) => layer(h), x)
  )
const net = deep(16)
type Params = ReturnType<typeof randomParams<Parameters<typeof net.apply>[0]>>
const loss = (params: Params, x: tf.Tensor2D) => net.apply(params)(x).square().mean() as tf.Scalar

/** Peak memory of `f` in bytes, beyond the memory before. */
const peakOf = (f: () => void): number => {
  const before = tf.memory().numBytes
  let most = 0
  const { runKernel } = tf.engine()
  const watched = function (this: unknown, ...args: Parameters<typeof runKernel>) {
    const result = runKernel.apply(tf.engine(), args)
    most = Math.max(most, tf.memory().numBytes - before)
    return result
  }
  Object.assign(tf.engine(), { runKernel: watched })
  try {
    f()
  } finally {
    Object.assign(tf.engine(), { runKernel })
  }
  return most
}

describe('checkpointing', () => {
  it('gives the gradients of the plain forward, dropout included, with less than half the memory', () =>
    tf.tidy(() => {
      const params = randomParams(net, 3)
      const x = randomTensor<tf.Tensor2D>([300, D], 1)
      const run = (checkpointing: boolean) => {
        let found: ValueAndGrad<Params> | undefined
        const peak = peakOf(() => {
          found = valueAndGrad((p: Params) => training({ seed: 5, dropout: 0.2, checkpointing }, () => loss(p, x)))(params)
        })
        return { ...found!, peak }
      }
      const [plain, saving] = [run(false), run(true)]
      assertClose(saving.value, plain.value)
      const expected = new Map(namedParameters(plain.grads))
      for (const [path, g] of namedParameters(saving.grads)) assertClose(g, expected.get(path)!, 1e-5, path)
      assert.ok(saving.peak < plain.peak / 2, `${saving.peak} bytes of ${plain.peak}`)
    }))
})

describe('a training step', () => {
  it('keeps frozen parameters bit-equal and memory constant over 500 steps', () => {
    const small = deep(2)
    const [start, frozen] = partition((path) => path.startsWith('layers.1.'))(randomParams(small, 4))
    const optimizer = adamW({ learningRate: 1e-3 })
    const x = randomTensor<tf.Tensor2D>([4, D], 2)
    const before = namedParameters(frozen).map(([path, leaf]) => [path, leaf.dataSync()])
    let [params, state] = [start, optimizer.init(start)]
    let memory: readonly number[] | undefined
    for (let step = 0; step < 500; step++) {
      const { value, grads } = valueAndGrad(
        (p: typeof start) => small.apply(combine<Params>(p, frozen))(x).square().mean() as tf.Scalar
      )(params)
      value.dispose()
      const next = optimizer.update(params, grads, state, { consume: true, gradScale: clipFactor(1)(grads).factor })
      params = next.params
      state = next.state
      const { numTensors, numBytes } = tf.memory()
      memory ??= [numTensors, numBytes]
      assert.deepEqual([numTensors, numBytes], memory)
    }
    assert.deepEqual(
      namedParameters(frozen).map(([path, leaf]) => [path, leaf.dataSync()]),
      before
    )
    disposeParams([params, frozen, state.first, state.second])
    x.dispose()
  })
})
