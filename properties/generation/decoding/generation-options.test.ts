import assert from 'node:assert/strict'
import { type GenerateOptions, generate } from '../../../generation/decoding/generate.js'
import { newTokensAllowed } from '../../../generation/decoding/generation-options.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'

const refused: Readonly<Record<string, GenerateOptions>> = {
  temperature: { temperature: -0.1 },
  topP: { topP: 0 },
  topK: { topK: 1.5 },
  minP: { minP: 2 },
  typicalP: { typicalP: 1.1 },
  numBeams: { numBeams: 0 },
  numReturnSequences: { numBeams: 2, numReturnSequences: 3 },
  maxNewTokens: { maxNewTokens: 0 },
  minNewTokens: { minNewTokens: -1 },
  maxLength: { maxLength: 3 },
  repetitionPenalty: { repetitionPenalty: 0 },
  noRepeatNgramSize: { noRepeatNgramSize: 2.5 },
  lengthPenalty: { lengthPenalty: Number.NaN },
  earlyStopping: { numBeams: 2, earlyStopping: 'soon' as never },
  stopStrings: { stopStrings: ['a', ''], decode: String },
  decode: { stopStrings: ['a'] },
  badWords: { badWords: [[]] },
  eosTokenIds: { eosTokenIds: [-1] },
  seed: { seed: [1, 2], doSample: true },
  visualDelta: { visualDelta: 1.5, imageTokenId: 1 },
  imageTokenId: { visualDelta: 0.5 },
  maxPositionEmbeddings: { visualDelta: 'auto', imageTokenId: 1 },
  inputIds: { maxPositionEmbeddings: 2 }
}

describe('options', () => {
  const inputs = { inputIds: tf.tensor2d([[1, 2, 3]], [1, 3], 'int32') }
  const never = (() => assert.fail('the model was called')) as unknown as InternVL

  for (const [name, options] of Object.entries(refused)) {
    it(`a senseless ${name} is a RangeError that names it, before anything is computed`, () =>
      assert.throws(
        () => generate(never, inputs, options),
        (error: Error) => error instanceof RangeError && error.message.startsWith(name)
      ))
  }

  it('what is no number is shown as it is, and a seed is a whole number', () => {
    const refuses = (options: object, message: RegExp) => assert.throws(() => generate(never, inputs, options), message)
    for (const temperature of [Number.NaN, Number.POSITIVE_INFINITY])
      refuses({ temperature }, new RegExp(`^RangeError: temperature: .*; it is ${temperature}$`))
    for (const seed of ['x', 1.5, Number.NaN, [1.5], 2 ** 60]) refuses({ seed }, /^RangeError: seed: it should be a whole number/)
  })

  it('padding is on the left, and no row is padding alone', () => {
    for (const mask of [
      [1, 1, 0],
      [1, 0, 1],
      [0, 0, 0]
    ]) {
      const attentionMask = tf.tensor2d([mask], [1, 3], 'int32')
      assert.throws(() => generate(never, { ...inputs, attentionMask }), /^RangeError: attentionMask: row 0/)
    }
  })

  it('makes 20 tokens where nothing else is said, as Transformers does', () => {
    assert.equal(newTokensAllowed({}, 7), 20)
    assert.equal(newTokensAllowed({ maxLength: 9 }, 7), 2)
    assert.equal(newTokensAllowed({ maxLength: 9, maxNewTokens: 5 }, 7), 5)
  })
})
