import * as assert from 'node:assert/strict'
import * as fc from 'fast-check'
import { type EngineName, selectEngine } from '../../../lib/engines/index.js'
import { tf } from '../../../lib/tf.js'

type Values = readonly number[]
const f = (shape: number[]) => (values: Values) =>
  tf.tensor(
    values.slice(
      0,
      shape.reduce((a, b) => a * b, 1)
    ) as number[],
    shape
  )

/** Every operation that a forward pass, a loss or a gradient uses, on 24 numbers. */
const operations: Readonly<Record<string, (v: Values) => tf.Tensor | tf.Tensor[]>> = {
  matMul: (v) => tf.matMul(f([2, 3, 4])(v) as tf.Tensor3D, f([2, 3, 4])(v) as tf.Tensor3D, false, true),
  einsum: (v) => tf.einsum('ij,kj->ik', f([2, 3])(v), f([4, 3])(v)),
  softmax: (v) => tf.softmax(f([2, 3, 4])(v)),
  logSoftmax: (v) => tf.logSoftmax(f([2, 3, 4])(v)),
  erf: (v) => f([4, 6])(v).erf(),
  sigmoid: (v) => f([4, 6])(v).sigmoid(),
  tanh: (v) => f([4, 6])(v).tanh(),
  exp: (v) => f([4, 6])(v).exp(),
  log: (v) => f([4, 6])(v).abs().add(1).log(),
  rsqrt: (v) => f([4, 6])(v).square().add(0.1).rsqrt(),
  trigonometry: (v) =>
    f([24])(v)
      .cos()
      .mul(f([24])(v).sin()),
  moments: (v) => Object.values(tf.moments(f([2, 3, 4])(v), -1, true)),
  reductions: (v) => [f([2, 3, 4])(v).mean(-1), f([2, 3, 4])(v).sum([0, 2]), f([2, 3, 4])(v).max(1), f([2, 3, 4])(v).min()],
  gather: (v) => tf.gather(f([6, 4])(v), tf.tensor([5, 0, 5, 2], [2, 2], 'int32')),
  gatherNd: (v) =>
    tf.gatherND(
      f([6, 4])(v),
      tf.tensor2d(
        [
          [5, 1],
          [0, 3]
        ],
        [2, 2],
        'int32'
      )
    ),
  slice: (v) => f([2, 3, 4])(v).slice([0, 1, 2], [2, 2, 1]),
  stridedSlice: (v) => f([4, 6])(v).stridedSlice([0, 1], [4, 6], [2, 2]),
  split: (v) => tf.split(f([4, 6])(v), 3, 1),
  concat: (v) => tf.concat([f([4, 3])(v), f([4, 2])(v)], 1),
  stack: (v) => tf.stack([f([4, 3])(v), f([4, 3])(v)], 1),
  unstack: (v) => tf.unstack(f([4, 3])(v), 1),
  transpose: (v) => f([2, 3, 4, 1, 1])(v).transpose([4, 2, 0, 3, 1]),
  pixelShuffle: (v) => f([1, 2, 2, 2, 3])(v).transpose([0, 3, 1, 2, 4]),
  sixAxes: (v) => f([1, 2, 1, 2, 2, 3])(v).transpose([0, 1, 4, 2, 3, 5]),
  pad: (v) =>
    f([4, 6])(v).pad(
      [
        [1, 0],
        [0, 2]
      ],
      7
    ),
  where: (v) => tf.where(f([4, 6])(v).greater(0), f([4, 6])(v), tf.zeros([4, 6])),
  cast: (v) => [f([4, 6])(v).cast('int32'), f([4, 6])(v).greater(0).cast('float32'), f([4, 6])(v).cast('int32').cast('float32')],
  conv2d: (v) => tf.conv2d(f([1, 4, 6, 1])(v) as tf.Tensor4D, f([2, 2, 1, 3])(v) as tf.Tensor4D, 2, 'valid'),
  argMax: (v) => [f([4, 6])(v).argMax(-1), f([4, 6])(v).argMin(0)],
  topk: (v) => Object.values(tf.topk(f([24])(v), 5)),
  comparisons: (v) => [
    f([4, 6])(v).equal(0),
    f([4, 6])(v).lessEqual(1),
    tf.logicalAnd(f([24])(v).greater(0), f([24])(v).less(2))
  ],
  tile: (v) => f([2, 3])(v).tile([2, 3]),
  clip: (v) =>
    f([4, 6])(v)
      .clipByValue(-1, 1)
      .maximum(f([6])(v))
      .minimum(0.5),
  cumsum: (v) => f([4, 6])(v).cumsum(1, true),
  oneHot: () => tf.oneHot(tf.tensor1d([1, 0, 3], 'int32'), 4),
  range: () => tf.range(0, 5, 1, 'int32').floorDiv(tf.scalar(2, 'int32')),
  reverse: (v) => f([4, 6])(v).reverse(1),
  gradients: (v) => {
    const table = f([6, 4])(v)
    const loss = (t: tf.Tensor): tf.Scalar =>
      tf
        .gather(t, tf.tensor1d([1, 1, 5], 'int32'))
        .erf()
        .square()
        .sum()
    return tf.grad(loss)(table)
  },
  convGradient: (v) =>
    tf.grad((w) =>
      tf
        .conv2d(f([1, 4, 6, 1])(v) as tf.Tensor4D, w as tf.Tensor4D, 2, 'valid')
        .square()
        .sum()
    )(f([2, 2, 1, 3])(v))
}

const relative = (value: number, expected: number): number => Math.abs(value - expected) / Math.max(1, Math.abs(expected))

describe('wasm', () => {
  let initial: EngineName
  before(async () => {
    initial = (await selectEngine()).name
  })
  afterEach(async () => {
    await selectEngine({ engine: initial })
  })

  const on = async (engine: EngineName, operation: (v: Values) => tf.Tensor | tf.Tensor[], values: Values) => {
    await selectEngine({ engine })
    const before = tf.memory().numTensors
    const outputs = [tf.tidy(() => operation(values))].flat()
    const results = outputs.map((t) => ({ shape: t.shape, dtype: t.dtype, values: [...t.dataSync()] }))
    tf.dispose(outputs)
    assert.equal(tf.memory().numTensors, before)
    return results
  }
  const numbers = fc.array(
    fc.integer({ min: -40, max: 40 }).map((n) => n / 16),
    { minLength: 24, maxLength: 24 }
  )

  for (const [name, operation] of Object.entries(operations))
    it(`${name} equals the CPU backend's`, async () => {
      const check = async (values: Values): Promise<void> => {
        const [wasm, cpu] = [await on('wasm', operation, values), await on('cpu', operation, values)]
        assert.deepEqual(
          wasm.map(({ shape, dtype }) => [shape, dtype]),
          cpu.map(({ shape, dtype }) => [shape, dtype])
        )
        const differences = wasm.map((output, i) => output.values.map((value, j) => relative(value, cpu[i]?.values[j] as number)))
        assert.ok(Math.max(...differences.flat()) <= 1e-5, `${name}: ${JSON.stringify([wasm, cpu])}`)
      }
      await fc.assert(fc.asyncProperty(numbers, check), { numRuns: 10 })
    })

  it('a CPU kernel that runs for wasm leaves no data in the CPU backend', async () => {
    await selectEngine({ engine: 'wasm' })
    const cpuBackend = tf.engine().findBackend('cpu') as tf.KernelBackend
    const before = cpuBackend.numDataIds()
    tf.tidy(() =>
      tf
        .einsum('ij,kj->ik', tf.ones([2, 3]), tf.ones([4, 3]))
        .erf()
        .dataSync()
    )
    assert.equal(cpuBackend.numDataIds(), before)
  })
})
