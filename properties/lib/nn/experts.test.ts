import assert from 'node:assert/strict'
import fc from 'fast-check'
import { loadBalancingLoss, mixtureOfExperts, topK } from '../../../lib/nn/experts.js'
import { tf } from '../../../lib/tf.js'
import { count, randomTensor, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'
import { assertClose } from '../../laws/close.js'
import { layers, unpack } from '../../reference/layers.js'

const samples = fc.record({ N: count(6), E: count(6, 2), k: count(2), D: count(3), seed })

describe('experts', () => {
  it('topK finds the highest scores in descending order, and passes gradients to these scores alone', () =>
    check(samples, ({ N, E, k, seed }) => {
      const scores = randomTensor<tf.Tensor2D>([N, E], seed)
      const { indices, values } = topK(scores, k)
      const sorted = (scores.arraySync() as number[][]).map((row) => [...row].sort((a, b) => b - a).slice(0, k))
      assert.deepEqual(values.arraySync(), sorted)
      const gradient = tf
        .grad((s) => topK(s as tf.Tensor2D, k).values.sum())(scores)
        .arraySync() as number[][]
      const chosen = indices.map((row) => Array.from({ length: E }, (_, e) => Number(row.includes(e))))
      assert.deepEqual(gradient, chosen)
    }))

  it('a mixture is the weighted sum of all experts; each expert computes only the tokens that chose it', () =>
    check(samples, ({ N, E, k, D, seed }) => {
      const [x, matrices] = [randomTensor<tf.Tensor2D>([N, D], seed), randomTensor<tf.Tensor3D>([E, D, D], seed + 1)]
      const { indices, values } = topK(randomTensor<tf.Tensor2D>([N, E], seed + 2), k)
      const expert = (e: number, rows: tf.Tensor2D): tf.Tensor2D =>
        tf.matMul(rows, matrices.slice([e], [1]).squeeze<tf.Tensor2D>([0]))
      let computed = 0
      const mixed = mixtureOfExperts(x, { experts: indices, weights: values }, (e, rows) => {
        computed += rows.shape[0]
        assert.ok(indices.some((row) => row.includes(e)))
        return expert(e, rows)
      })
      assert.equal(computed, N * k)
      const dense = tf.stack(
        Array.from({ length: E }, (_, e) => expert(e, x)),
        1
      ) // [N, E, D]
      const probabilities = values.arraySync() as number[][]
      const weights = tf.tensor2d(
        indices.map((row, n) => Array.from({ length: E }, (_, e) => (row.includes(e) ? probabilities[n]![row.indexOf(e)]! : 0)))
      )
      assertClose(mixed, dense.mul(weights.expandDims(2)).sum(1))
    }))

  it("loadBalancingLoss and its gradient are Transformers', with a mask and without", () =>
    tf.tidy(() => {
      const { logits, topK: k, cases } = layers.routers
      for (const { mask, loss, gradients } of cases) {
        const attentionMask = mask ? tf.tensor2d(mask, undefined, 'int32') : undefined
        const { value, grads } = tf.valueAndGrads((...all: tf.Tensor[]) =>
          loadBalancingLoss(all as tf.Tensor2D[], k, attentionMask)
        )(logits.map(unpack))
        assertClose(value, tf.scalar(loss), 1e-6)
        for (const [i, g] of grads.entries()) assertClose(g, unpack(gradients[i]), 1e-6)
      }
    }))
})
