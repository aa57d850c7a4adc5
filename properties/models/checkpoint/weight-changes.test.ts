import assert from 'node:assert/strict'
import fc from 'fast-check'
import { tf } from '../../../lib/tf.js'
import { addProduct } from '../../../models/checkpoint/weight-changes.js'
import { assertClose } from '../../laws/close.js'

const values = (n: number, seed: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 7 + seed))

/** Number of values that `tf.tidy` visits in the results of `run` in search of tensors. */
const numbersWalked = (run: () => unknown): number => {
  const engine = tf.engine()
  const { endScope } = engine
  let walked = 0
  engine.endScope = (result) => {
    walked += ArrayBuffer.isView(result) ? (result as unknown as ArrayLike<number>).length : 0
    endScope.call(engine, result)
  }
  try {
    run()
  } finally {
    engine.endScope = endScope
  }
  return walked
}

describe('changing weights by a LoRA update', () => {
  it('adds scaling · B A, in one step or in several', () => {
    const size = fc.integer({ min: 1, max: 5 })
    fc.assert(
      fc.property(
        size,
        size,
        fc.constantFrom(3, 2 ** 17, 2 ** 18 + 1),
        fc.constantFrom(0.5, 2),
        (rows, rank, columns, scaling) => {
          const [w, a, b] = [values(rows * columns, 1), values(rank * columns, 2), values(rows * rank, 3)]
          const sum = addProduct(w, a, b, [rows, rank, columns], scaling)
          tf.tidy(() =>
            assertClose(
              tf.tensor2d(sum, [rows, columns]),
              tf.tensor2d(w, [rows, columns]).add(
                tf
                  .tensor2d(b, [rows, rank])
                  .matMul(tf.tensor2d(a, [rank, columns]))
                  .mul(scaling)
              )
            )
          )
        }
      ),
      { numRuns: 10 }
    )
  })

  it('does not search arrays of numbers for tensors', () => {
    const [rows, rank, columns] = [64, 2, 4096]
    const run = () =>
      addProduct(values(rows * columns, 1), values(rank * columns, 2), values(rows * rank, 3), [rows, rank, columns], 1)
    assert.equal(numbersWalked(run), 0)
    assert.equal(
      numbersWalked(() => tf.tidy(() => tf.ones([7]).dataSync())),
      7
    ) // a control: this call is counted
  })

  it('leaks no tensor, also if a step fails', () => {
    const before = tf.memory().numTensors
    addProduct(values(6, 1), values(3, 2), values(2, 3), [2, 1, 3], 1)
    assert.throws(() => addProduct(values(6, 1), values(3, 2), values(1, 3), [2, 1, 3], 1))
    assert.equal(tf.memory().numTensors, before)
  })
})
