import assert from 'node:assert/strict'
import fc from 'fast-check'
import { finishRule, stopStringCondition } from '../../../generation/decoding/stopping.js'

const letters = 'ab'
const decode = (ids: readonly number[]) => ids.map((id) => letters[id] ?? '').join('')
const word = fc.array(fc.nat(1), { minLength: 1, maxLength: 4 }).map(decode)
const ids = fc.array(fc.nat(1), { maxLength: 30 })

describe('stop', () => {
  it('stops at the token that completes a stop string in the answer, not earlier', () =>
    fc.assert(
      fc.property(fc.array(word, { minLength: 1, maxLength: 3 }), ids, ids, (texts, prompt, answer) => {
        const holds = stopStringCondition(texts, decode)
        const first = answer.findIndex((_, i) => holds([...prompt, ...answer.slice(0, i + 1)], prompt.length))
        const ends = texts
          .map((text) => decode(answer).indexOf(text) + text.length - 1)
          .filter((end, i) => decode(answer).includes(texts[i]!) && end >= 0)
        assert.equal(first, ends.length > 0 ? Math.min(...ends) : -1)
      })
    ))

  it('returns the reason: an end token, a condition, the length', () => {
    const stop = finishRule({ eosTokenIds: [7, 8], stoppingConditions: [(ids) => ids.at(-1) === 3] }, 2)
    assert.equal(stop([1, 8], 1), 'eos')
    assert.equal(stop([1, 3], 1), 'stop')
    assert.equal(stop([1, 2], 1), undefined)
    assert.equal(stop([1, 2, 2], 1), 'length')
    assert.equal(stop([7, 2], 1), undefined)
  })

  it('stops at the first token after maxTime, by the given clock', () => {
    let now = 5000
    const stop = finishRule({ maxTime: 1.5 }, 10, () => now)
    assert.equal(stop([1, 2], 1), undefined)
    now = 6500
    assert.equal(stop([1, 2, 2], 1), undefined)
    now = 6501
    assert.equal(stop([1, 2, 2, 2], 1), 'length')
  })
})
