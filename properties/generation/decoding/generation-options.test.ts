import assert from 'node:assert/strict'
import { type GenerateOptions, generate } from '../../../generation/decoding/generate.js'
import { maxNewTokensFor } from '../../../generation/decoding/generation-options.js'
import { optionRanges } from '../../../generation/decoding/options/option-ranges.js'
import { InputError } from '../../../lib/error.js'
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
  maxPositionEmbeddings: { visualDelta: 'auto', imageTokenId: 1 }
}

describe('options', () => {
  const inputs = { inputIds: tf.tensor2d([[1, 2, 3]], [1, 3], 'int32') }
  const never = (() => assert.fail('the model was called')) as unknown as InternVL

  for (const [name, options] of Object.entries(refused)) {
    it(`an invalid ${name} is a RangeError that names the option, before any forward`, () =>
      assert.throws(
        () => generate(never, inputs, options),
        (error: Error) => error instanceof RangeError && error.message.startsWith(name)
      ))
  }

  it('every numeric option has a bound, checked before any forward', () => {
    for (const name of Object.keys(optionRanges))
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 1e300, -1e300, -1000, 'x'])
        assert.throws(
          () => generate(never, inputs, { doSample: true, [name]: value as number }),
          (error: Error) => error.message.startsWith(`${name}: expected`),
          `${name}: ${value}`
        )
    for (const options of [{ numBeams: 1e6 }, { doSample: true, numReturnSequences: 1e6 }, { eosTokenIds: [1e12] }])
      assert.throws(() => generate(never, inputs, options), new RegExp(`^RangeError: ${Object.keys(options).at(-1)}: expected`))
  })

  it('lists of another type are RangeErrors that name the option', () => {
    const lists = [
      'badWords',
      'sequenceBias',
      'stopStrings',
      'eosTokenIds',
      'suppressTokens',
      'logitsProcessors',
      'stoppingConditions'
    ]
    for (const name of lists)
      for (const value of [false, 3, 'x', {}, [0.5], [null], [[[]]], [[[], 1]]])
        assert.throws(
          () => generate(never, inputs, { [name]: value, decode: String }),
          (error: Error) => error instanceof RangeError && error.message.startsWith(`${name}: expected`),
          `${name}: ${JSON.stringify(value)}`
        )
  })

  it('a prompt longer than the model is an InputError that names the lengths, before any forward', () =>
    assert.throws(
      () => generate(never, inputs, { maxPositionEmbeddings: 2 }),
      (error: Error) => error instanceof InputError && /^inputIds: the prompt has 3 tokens, the model has 2/.test(error.message)
    ))

  it('NaN is shown in the message, and a seed is an integer', () => {
    const refuses = (options: object, message: RegExp) => assert.throws(() => generate(never, inputs, options), message)
    for (const temperature of [Number.NaN, Number.POSITIVE_INFINITY])
      refuses({ temperature }, new RegExp(`^RangeError: temperature: .*got ${temperature}$`))
    for (const seed of ['x', 1.5, Number.NaN, [1.5], 2 ** 60]) refuses({ seed }, /^RangeError: seed: expected an integer/)
  })

  it('padding is on the left, and no row is only padding', () => {
    for (const mask of [
      [1, 1, 0],
      [1, 0, 1],
      [0, 0, 0]
    ]) {
      const attentionMask = tf.tensor2d([mask], [1, 3], 'int32')
      assert.throws(() => generate(never, { ...inputs, attentionMask }), /^RangeError: attentionMask: row 0/)
    }
  })

  it('generates 20 tokens by default, as Transformers does', () => {
    assert.equal(maxNewTokensFor({}, 7), 20)
    assert.equal(maxNewTokensFor({ maxLength: 9 }, 7), 2)
    assert.equal(maxNewTokensFor({ maxLength: 9, maxNewTokens: 5 }, 7), 5)
  })
})
