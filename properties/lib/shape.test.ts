import assert from 'node:assert/strict'
import fc from 'fast-check'
import { expectAxes, expectShape, expectWhole, ShapeError } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import { inputAt } from '../fuzz/fuzzer.js'
import { kindNamed } from '../fuzz/kinds/index.js'
import { verdictOf } from '../fuzz/verdict.js'

const shapeError = (message: RegExp) => (error: unknown) => error instanceof ShapeError && message.test(error.message)

describe('shapes of arguments', () => {
  it('axes of one name have one length; the lengths are returned', () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 })
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 5 }), ([B, L, V], other) =>
        tf.tidy(() => {
          const tensors = (length: number) => ({
            logits: [tf.zeros([B!, L!, V!]), 'B L V', 'float32'] as const,
            labels: [tf.zeros([B!, length], 'int32'), 'B L', 'int32'] as const,
            rows: [tf.zeros([2, 2, V!]), '… V'] as const,
            scales: [tf.zeros([1, 7]), '1 *'] as const
          })
          if (other === L) assert.deepEqual(expectAxes('f', tensors(other)), { B, L, V })
          else
            assert.throws(
              () => expectAxes('f', tensors(other)),
              shapeError(/^f: labels: expected int32 \[B, L\], got \[.*\]: L is \d in logits$/)
            )
        })
      )
    )
  })

  it('other ranks, types, lengths and values that are no tensors are named', () => {
    const x = tf.zeros([2, 3])
    assert.throws(() => expectAxes('f', { x: [x, 'B L D'] }), shapeError(/^f: x: expected a tensor \[B, L, D\], got \[2, 3\]$/))
    assert.throws(() => expectAxes('f', { x: [x, 'B L', 'int32'] }), shapeError(/expected int32 \[B, L\], got float32 \[2, 3\]/))
    assert.throws(() => expectAxes('f', { x: [x, 'B 4'] }), shapeError(/got \[2, 3\]: 4 is 4$/))
    assert.throws(() => expectAxes('f', { x: [undefined, 'B'] }), shapeError(/x: expected a tensor \[B\], got undefined/))
    assert.throws(() => expectAxes('f', { x: [[1] as never, 'B'] }), shapeError(/got object/))
    assert.throws(() => expectShape('x', x, [2, 4]), shapeError(/^x: expected \[2, 4\], got \[2, 3\]$/))
    for (const k of [0, 1.5, Number.NaN, 9, '2' as never])
      assert.throws(() => expectWhole('f', 'k', k, 1, 3), shapeError(/^f: k: expected a whole/))
    expectWhole('f', 'k', 3, 1, 3)
    x.dispose()
  })

  it('a wrong call of any function of lib is a ShapeError or a RangeError, never an error of TensorFlow.js', async () => {
    const kind = kindNamed('kernel')
    let refused = 0
    for (let index = 0; index < 3000; index++) {
      const input = inputAt(kind, 16, index)
      if ('registry' in (input as object)) continue // wrong-calls.test.ts calls the registry
      try {
        await kind.run(input, undefined as never)
      } catch (error) {
        const { outcome, detail } = verdictOf(error)
        assert.equal(outcome, 'refused', `${JSON.stringify(input)}: ${detail}`)
        refused++
      }
    }
    assert.ok(refused > 500, `${refused} refused`)
  }).timeout(120_000)
})
