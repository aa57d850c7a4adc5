import assert from 'node:assert/strict'
import fc from 'fast-check'
import { adamW, clipByGlobalNorm, exceptNormsAndBiases, globalNorm } from '../../../lib/optim/adamw.js'
import { namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'

type Tree = { readonly p: tf.Tensor2D; readonly q: tf.Tensor1D }
const tree = (p: number[][], q: number[]): Tree => ({ p: tf.tensor2d(p), q: tf.tensor1d(q) })
const flat = (t: Tree): readonly number[] => namedParameters(t).flatMap(([, leaf]) => Array.from(leaf.dataSync()))

// torch 2.15: AdamW(lr=0.01, weight_decay=0.1, no decay of q) after clip_grad_norm_(1.5), three steps
const steps = [
  { p: [[0.1, -0.2], [0.3, 4.0]], q: [1.0, -1.0], norm: 4.25910758972168, after: [0.4895000159740448, -0.9890000224113464, 1.9880000352859497, 0.2397499978542328, 0.9900000095367432, -2.990000009536743] },
  { p: [[-0.5, 0.0], [0.3, -4.0]], q: [2.0, 0.1], norm: 4.511097431182861, after: [0.4949025809764862, -0.9813104867935181, 1.9760311841964722, 0.23974914848804474, 0.9802885055541992, -2.9840288162231445] },
  { p: [[1e-6, 0.2], [0.3, 0.4]], q: [0.0, 5.0], norm: 5.028916358947754, after: [0.49896225333213806, -0.980509340763092, 1.9641355276107788, 0.23930077254772186, 0.9727814793586731, -2.989180564880371] }
] // biome-ignore format: a table

describe('adamW', () => {
  it("takes PyTorch's steps, with clipping and with decay on some parameters only", () =>
    tf.tidy(() => {
      const optimizer = adamW({ learningRate: 0.01, weightDecay: 0.1, decays: (path) => path === 'p' })
      let params = tree([[0.5, -1.0], [2.0, 0.25]], [1.0, -3.0]) // biome-ignore format: a matrix
      let state = optimizer.init(params)
      for (const { p, q, norm, after } of steps) {
        const clipped = clipByGlobalNorm(1.5)(tree(p, q))
        assert.ok(Math.abs(clipped.norm - norm) < 1e-5)
        const next = optimizer.update(params, clipped.grads, state)
        params = next.params
        state = next.state
        for (const [i, x] of flat(params).entries()) assert.ok(Math.abs(x - after[i]!) < 1e-6, `${i}: ${x}, expected ${after[i]}`)
      }
    }))

  it('leaves the old parameters and the old state unchanged, and creates only the new tensors', () =>
    tf.tidy(() => {
      const optimizer = adamW({ learningRate: 0.1 })
      const params = tree([[1]], [2])
      const state = optimizer.init(params)
      const grads = tree([[3]], [4])
      const before = tf.memory().numTensors
      optimizer.update(params, grads, state)
      assert.equal(tf.memory().numTensors - before, 6) // two parameters, two moments for each
      assert.deepEqual(flat(params), [1, 2])
      assert.deepEqual([state.step, ...state.first.p!.dataSync()], [0, 0])
    }))

  it('multiplies the schedule’s learning rate of a step, counted from 0, by the factor of a path', () =>
    tf.tidy(() => {
      const calls: number[] = []
      const learningRate = (step: number) => {
        calls.push(step)
        return 0.1 * (step + 1)
      }
      const scheduled = adamW({ learningRate, learningRateFactor: (path) => (path === 'p' ? 0.5 : 1) })
      const grads = tree([[3]], [4])
      const once = scheduled.update(tree([[1]], [2]), grads, scheduled.init(tree([[1]], [2])))
      const twice = scheduled.update(once.params, grads, once.state)
      assert.deepEqual(calls, [0, 1])
      const rate = (r: number, params: Tree, state: typeof once.state) =>
        flat(adamW({ learningRate: r }).update(params, grads, state).params)
      assert.equal(flat(twice.params)[0], rate(0.1, once.params, once.state)[0])
      assert.equal(flat(twice.params)[1], rate(0.2, once.params, once.state)[1])
    }))

  it('an update that consumes its inputs gives the same result, and disposes the inputs', () =>
    tf.tidy(() => {
      const optimizer = adamW({ learningRate: 0.1 })
      const made = () => ({ params: tree([[1]], [2]), grads: tree([[3]], [4]) })
      const [retained, consumed] = [made(), made()]
      const [state, consumedState] = [optimizer.init(retained.params), optimizer.init(consumed.params)]
      const before = tf.memory().numTensors
      const next = optimizer.update(consumed.params, consumed.grads, consumedState, { consume: true })
      assert.equal(tf.memory().numTensors - before, 6 - 8)
      assert.deepEqual(flat(next.params), flat(optimizer.update(retained.params, retained.grads, state).params))
    }))

  it('leaves absent leaves of a partial tree absent', () =>
    tf.tidy(() => {
      const optimizer = adamW({ learningRate: 0.1 })
      const params = { p: tf.tensor1d([1]), q: undefined }
      const { params: next, state } = optimizer.update(params, { p: tf.tensor1d([3]), q: undefined }, optimizer.init(params))
      assert.deepEqual([next.q, Object.keys(state.first)], [undefined, ['p']])
    }))

  it('weight decay excludes norms and biases of InternVL', () => {
    const none = [
      'a.input_layernorm.weight',
      'model.language_model.norm.weight',
      'x.q_norm.weight',
      'p.layer_norm.weight',
      'l.bias'
    ]
    const some = ['a.q_proj.weight', 'a.q_proj.weight.lora_A', 'model.vision_tower.embeddings.cls_token', 'e.layer.0.lambda_1']
    assert.deepEqual([...none, ...some].filter(exceptNormsAndBiases), some)
  })
})

describe('clipByGlobalNorm', () => {
  it('never leaves a norm above the bound, and keeps directions', () =>
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: 2, maxLength: 5 }),
        fc.float({ min: Math.fround(0.1), max: 10, noNaN: true }),
        (values, bound) =>
          tf.tidy(() => {
            const { grads, norm } = clipByGlobalNorm(bound)({ g: tf.tensor1d(values) })
            assert.ok(globalNorm(grads) <= Math.min(bound, norm) * (1 + 1e-5))
            const clipped = grads.g.dataSync()
            for (const [i, x] of values.entries())
              assert.ok(Math.abs(clipped[i]! - x * Math.min(1, bound / (norm + 1e-6))) <= 1e-4 * Math.abs(x) + 1e-30)
          })
      ),
      { numRuns: 20 }
    ))
})
