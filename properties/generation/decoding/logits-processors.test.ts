import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { GenerateOptions } from '../../../generation/decoding/generate.js'
import { logitsProcessors, noRepeatNgram } from '../../../generation/decoding/logits-processors.js'
import { logits, tokens } from '../../arbitraries/logits.js'

const options: Readonly<Record<string, GenerateOptions>> = {
  repetitionPenalty: { repetitionPenalty: 1.3 },
  presencePenalty: { presencePenalty: 0.7 },
  frequencyPenalty: { frequencyPenalty: -1.5, presencePenalty: 2 },
  noRepeatNgramSize: { noRepeatNgramSize: 2 },
  encoderRepetitionPenalty: { encoderRepetitionPenalty: 1.3 },
  encoderNoRepeatNgramSize: { encoderNoRepeatNgramSize: 2 },
  badWords: { badWords: [[1], [2, 3], [4, 1]], eosTokenIds: [4] },
  sequenceBias: {
    sequenceBias: [
      [[2], 1],
      [[1, 2], -1]
    ]
  },
  minNewTokens: { minNewTokens: 3, eosTokenIds: [0, 2] },
  forcedTokens: { forcedTokens: [3, 1] },
  forcedEosTokenIds: { forcedEosTokenIds: [2] },
  suppressTokens: { suppressTokens: [1, 3] },
  beginSuppressTokens: { beginSuppressTokens: [0] },
  removeInvalidValues: { removeInvalidValues: true },
  renormalizeLogits: { renormalizeLogits: true }
}

describe('logits', () => {
  it('presence and frequency penalties count the tokens of the answer alone', () => {
    const [process] = logitsProcessors({ presencePenalty: 0.5, frequencyPenalty: 0.25 }, 2, 5)
    const penalized = process!([1, 0, 2, 2, 3, 9], Float32Array.of(1, 1, 1, 1), 2)
    assert.deepEqual([...penalized], [1, 1, 0, 0.25])
  })

  for (const [name, o] of Object.entries(options)) {
    it(`${name} does not change its arguments, accepts ids beyond the vocabulary, and returns as many logits`, () =>
      fc.assert(
        fc.property(logits, tokens(30), fc.nat(3), (some, ids, made) => {
          const given = Float32Array.from({ length: Math.max(5, some.length) }, (_, i) => some[i] ?? 0) // the options name tokens 0 to 4
          const [copy, idsCopy] = [given.slice(), [...ids]]
          for (const process of logitsProcessors(o, ids.length, 5)) {
            assert.equal(process(ids, given, Math.max(0, ids.length - made)).length, given.length)
            assert.deepEqual([given, ids], [copy, idsCopy])
          }
        })
      ))
  }

  it('tokens of options outside the vocabulary are errors that name the option and the token', () => {
    for (const o of [{ sequenceBias: [[[1, 9], 1]] }, { badWords: [[9]] }, { forcedEosTokenIds: [9] }] as const) {
      const [process] = logitsProcessors(o, 1, 1)
      assert.throws(
        () => process!([1], new Float32Array(4), 1),
        /(sequenceBias|badWords|forced tokens): 9 is no token; .* 0 to 3/
      )
    }
  })

  it('beginSuppressTokens of a prompt of one token count after a forced first token', () => {
    const o = { beginSuppressTokens: [0], forcedBosTokenId: 2 }
    const isSuppressed = (ids: readonly number[], length: number) =>
      logitsProcessors(o, length, 5).reduce((x: Float32Array, process) => process(ids, x, length), new Float32Array(4).fill(1))[0] === Number.NEGATIVE_INFINITY // biome-ignore format: one line
    assert.deepEqual([isSuppressed([1, 2], 1), isSuppressed([1, 2, 3], 1)], [true, false])
    assert.deepEqual([isSuppressed([1, 1], 2), isSuppressed([1, 1, 2], 2)], [true, false])
  })

  it('of equal sequences with a bias the last one counts', () => {
    const [process] = logitsProcessors({ sequenceBias: [[[1], 8], [[0, 1], 1], [[1], 2]] }, 1, 5) // biome-ignore format: one line
    assert.deepEqual([...process!([0], new Float32Array(3), 1)], [0, 3, 0])
  })

  it('an n-gram processor forbids exactly the tokens that complete an earlier n-gram', () =>
    fc.assert(
      fc.property(tokens(3, 1, 12), fc.integer({ min: 1, max: 4 }), (ids, n) => {
        const out = noRepeatNgram(n)(ids, new Float32Array(4), 0)
        const grams = ids.map((_, i) => String(ids.slice(i, i + n))).slice(0, Math.max(0, ids.length - n + 1))
        out.forEach((x, token) => {
          const next = [...ids, token].slice(-n)
          assert.equal(x === Number.NEGATIVE_INFINITY, next.length === n && grams.includes(String(next)))
        })
      })
    ))

  it('without options there is no processor, so that logits can stay on the device', () => {
    const neutral = {
      repetitionPenalty: 1,
      noRepeatNgramSize: 0,
      suppressTokens: [],
      badWords: [],
      minNewTokens: 0,
      eosTokenIds: [2]
    }
    assert.deepEqual(logitsProcessors({}, 3, 5), [])
    assert.deepEqual(logitsProcessors(neutral, 3, 5), [])
    assert.deepEqual(logitsProcessors({ temperature: 0.5, topK: 3 }, 3, 5), [], 'warpers are for drawing')
  })
})
