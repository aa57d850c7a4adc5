import * as assert from 'node:assert/strict'
import { attr, nativeBackend, selectEngine, tfType } from '../../../lib/engines/index.js'
import { tf } from '../../../lib/tf.js'

describe('the selected engine', () => {
  it('multiplies matrices as the CPU backend does', async () => {
    const { name } = await selectEngine()
    const product = () => tf.tidy(() => tf.matMul(tf.range(0, 12).reshape([3, 4]), tf.range(0, 20).reshape([4, 5])).arraySync())
    const values = product()
    await selectEngine({ engine: 'cpu' })
    assert.deepEqual(values, product())
    await selectEngine({ engine: name })
  })
})

describe('nativeBackend', () => {
  beforeEach(async function () {
    if ((await selectEngine()).name !== 'native') this.skip() // the other engines have no native backend
  })
  const ops = () => nativeBackend() ?? assert.fail('no native backend')

  it("runs TensorFlow's own ops, fused ones too", () => {
    const [x, w, b] = [tf.tensor2d([1, 2, 3, 4], [2, 2]), tf.tensor2d([1, 0, 0, -1], [2, 2]), tf.tensor1d([0.5, 1])]
    const attrs = [attr.type('T', 'float32'), attr.int('num_args', 1), attr.string('fused_ops', ['BiasAdd', 'Relu'])]
    const [y] = ops().executeOp('_FusedMatMul', attrs, [x, w, b])
    assert.deepEqual([...(y as tf.Tensor).dataSync()], [1.5, 0, 3.5, 0])
    tf.dispose([x, w, b, y as tf.Tensor])
  })

  it('takes lists of types, for ops with many inputs', () => {
    const inputs = [tf.tensor1d([1.5, 2]), tf.tensor1d([3], 'int32')]
    const copies = ops().executeOp('IdentityN', [attr.type('T', ['float32', 'int32'])], inputs, 2)
    assert.deepEqual(
      copies.map((copy) => [copy.dtype, ...copy.dataSync()]),
      [
        ['float32', 1.5, 2],
        ['int32', 3]
      ]
    )
    tf.dispose([...inputs, ...copies])
  })

  it('holds types that TensorFlow.js lacks, and leaks no tensor', () => {
    const before = tf.memory().numTensors
    const x = tf.tensor1d([1, 1 + 2 ** -7, 1 + 2 ** -12])
    const types = (from: 'float32' | 'bfloat16', to: 'float32' | 'bfloat16') => [
      attr.type('SrcT', from),
      attr.type('DstT', to),
      attr.bool('Truncate', false)
    ]
    const [half] = ops().run('Cast', types('float32', 'bfloat16'), ops().handles([x]))
    assert.ok(half && half.dtype === tfType.bfloat16)
    const [back] = ops().run('Cast', types('bfloat16', 'float32'), [half.id])
    assert.ok(back)
    ops().release(half)
    const y = ops().tensor(back)
    assert.deepEqual([...y.dataSync()], [1, 1 + 2 ** -7, 1])
    tf.dispose([x, y])
    assert.equal(tf.memory().numTensors, before)
  })
})
