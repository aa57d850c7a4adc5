import assert from 'node:assert/strict'
import fc from 'fast-check'
import { positionAt, visualDeltas, visualPositions } from '../../../models/internvl/v2pe.js'

const image = 1
const ids = fc.array(fc.constantFrom(image, 7), { maxLength: 24 })
const delta = fc.constantFrom(...visualDeltas)
const imagesIn = (row: readonly number[]): number => row.filter((id, i) => id === image && row[i - 1] !== image).length

describe('visualPositions', () => {
  it('a delta of 1 counts tokens, images or not', () =>
    fc.assert(
      fc.property(ids, (row) => {
        assert.deepEqual(visualPositions(row, image, 1), [...row.keys()])
        assert.equal(positionAt(visualPositions(row, image, 1), row.length), row.length)
      })
    ))

  it('text positions are integers one apart; image positions advance by the image’s delta', () =>
    fc.assert(
      fc.property(ids, fc.array(delta, { minLength: 24, maxLength: 24 }), (row, all) => {
        const deltas = all.slice(0, imagesIn(row))
        const positions = visualPositions(row, image, deltas)
        let number = -1
        for (const [i, id] of row.entries()) {
          if (id === image && row[i - 1] !== image) number++
          const before = positions[i - 1] ?? (id === image ? -deltas[0]! : -1)
          assert.equal(positions[i]!, id === image ? before + deltas[number]! : Math.ceil(before) + 1)
        }
      })
    ))

  it('later tokens do not change earlier positions', () =>
    fc.assert(
      fc.property(ids, ids, delta, (row, more, step) =>
        assert.deepEqual(visualPositions([...row, ...more], image, step).slice(0, row.length), visualPositions(row, image, step))
      )
    ))

  it('are those of OpenGVLab for two images of several tokens', () => {
    const row = [5, image, image, image, 6, 7, image, image, 8]
    assert.deepEqual(visualPositions(row, image, 1 / 4), [0, 0.25, 0.5, 0.75, 2, 3, 3.25, 3.5, 5])
    assert.deepEqual(visualPositions(row, image, [1 / 2, 1]), [0, 0.5, 1, 1.5, 3, 4, 5, 6, 7])
  })

  it('rejects a delta that is not above 0 and at most 1, and too few or many of them', () => {
    for (const wrong of [0, -0.5, 1.5, Number.NaN])
      for (const deltas of [wrong, [wrong]])
        assert.throws(() => visualPositions([image], image, deltas), /^RangeError: visualDelta: expected above 0 and at most 1/)
    assert.throws(() => visualPositions([image, 2, image], image, [1]), /^RangeError: visualDelta: 1 steps for 2 images/)
  })
})
