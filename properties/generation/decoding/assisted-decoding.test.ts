import assert from 'node:assert/strict'
import fc from 'fast-check'
import { promptLookup } from '../../../generation/decoding/assisted-decoding.js'
import { disposeCache, type GenerateOptions, generate, generateAll } from '../../../generation/decoding/generate.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { tokens } from '../../arbitraries/logits.js'
import { disposeInputs, makeInputs, tinyModel, vocabulary } from '../tiny.js'

const modes: readonly GenerateOptions[] = [
  {},
  { repetitionPenalty: 1.4, minNewTokens: 3, eosTokenIds: [5, 6, 7, 8] },
  { doSample: true, temperature: 1.5, topP: 0.9, seed: 11 },
  { doSample: true, temperature: 0.4, seed: 5, outputLogprobs: true }
]

describe('assisted decoding', () => {
  let [model, draft]: InternVL[] = []
  before(() => {
    model = tinyModel()
    draft = tinyModel({ num_hidden_layers: 1 })
  })
  const run = async (ids: readonly number[], options: GenerateOptions) => {
    const inputs = makeInputs([ids])
    try {
      return await generateAll(model!, inputs, { maxNewTokens: 24, ...options })
    } finally {
      disposeInputs(inputs)
    }
  }
  const assistance = fc.oneof(
    fc.record({ promptLookupNumTokens: fc.integer({ min: 1, max: 9 }), maxMatchingNgramSize: fc.integer({ min: 1, max: 3 }) }),
    fc.record({
      assistantModel: fc.boolean().map((same) => ({ model: (same ? model : draft)! })),
      numAssistantTokens: fc.integer({ min: 1, max: 6 }),
      assistantConfidenceThreshold: fc.constantFrom(0, 0.2, 1)
    })
  )

  it('tokens are those of decoding without candidates, greedy and sampled, and nothing is left behind', () =>
    fc.assert(
      fc.asyncProperty(
        tokens(vocabulary - 2, 1, 12).map((ids) => ids.map((id) => id + 2)),
        fc.constantFrom(...modes),
        assistance,
        async (ids, mode, assisted) => {
          const plain = await run(ids, mode)
          const before = tf.memory().numTensors
          const { sequences, finishReasons, logprobs } = await run(ids, { ...mode, ...assisted })
          assert.equal(tf.memory().numTensors, before)
          assert.deepEqual([sequences, finishReasons], [plain.sequences, plain.finishReasons])
          for (const [i, p] of (plain.logprobs?.[0] ?? []).entries()) assert.ok(Math.abs(p - logprobs![0]![i]!) < 1e-4)
        }
      ),
      { numRuns: 40 }
    ))

  it('a text that repeats takes fewer forwards than tokens', async () => {
    let forwards = 0
    const counted = Object.assign((...args: Parameters<InternVL>) => model!(...args), model, {
      decode: (...args: Parameters<InternVL['decode']>) => {
        forwards++
        return model!.decode(...args)
      }
    }) as InternVL
    const inputs = makeInputs([[3, 4, 5]])
    const { sequences } = await generateAll(counted, inputs, { maxNewTokens: 60, promptLookupNumTokens: 8 })
    disposeInputs(inputs)
    assert.equal(sequences[0]!.length, 60) // a tiny greedy model soon repeats itself
    assert.ok(forwards < 40, `${forwards} forwards`)
  })

  it('leaving early disposes everything, and a returned cache continues the row', async () => {
    const inputs = makeInputs([[3, 4, 5, 3, 4]])
    const before = tf.memory().numTensors
    for (const stop of [1, 2, 5]) {
      let step = 0
      for await (const _ of generate(model!, inputs, { maxNewTokens: 20, promptLookupNumTokens: 4 })) if (++step === stop) break
      assert.equal(tf.memory().numTensors, before)
    }
    const { cache, sequences } = await generateAll(model!, inputs, {
      maxNewTokens: 10,
      promptLookupNumTokens: 4,
      returnCache: true
    })
    assert.deepEqual(cache![0]!.ids, [3, 4, 5, 3, 4, ...sequences[0]!].slice(0, cache![0]!.ids.length))
    assert.equal(cache![0]!.kv[0]!.length, cache![0]!.ids.length)
    for (const { kv } of cache!) disposeCache(kv)
    assert.equal(tf.memory().numTensors, before)
    disposeInputs(inputs)
  })

  it('looks up the tokens after the earlier occurrence of the longest n-gram', () => {
    assert.deepEqual(promptLookup([1, 2, 3, 4, 1, 2], 3), [3, 4, 1])
    assert.deepEqual(promptLookup([9, 2, 7, 1, 2, 3, 1, 2], 2), [3, 1]) // the 2-gram before the 1-gram
    assert.deepEqual(promptLookup([1, 2, 3], 3), [])
    assert.deepEqual(promptLookup([5], 3), [])
  })

  it('rejects options that do not go together, and names them', async () => {
    const small = tinyModel({ vocab_size: vocabulary - 1 })
    const wrong: readonly (readonly [GenerateOptions, RegExp])[] = [
      [{ promptLookupNumTokens: 3, numBeams: 2 }, /^promptLookupNumTokens: .*numBeams/],
      [{ assistantModel: { model: draft! }, numBeams: 2 }, /^assistantModel: .*numBeams/],
      [{ promptLookupNumTokens: 3, numReturnSequences: 2, doSample: true }, /^promptLookupNumTokens: .*numReturnSequences/],
      [{ promptLookupNumTokens: 3, assistantModel: { model: draft! } }, /^assistantModel: .*promptLookupNumTokens/],
      [{ promptLookupNumTokens: 0 }, /^promptLookupNumTokens: expected an integer/],
      [{ assistantModel: {} as never }, /^assistantModel: expected a loaded checkpoint/],
      [{ assistantModel: { model: small } }, /^assistantModel: expected a vocabulary of/]
    ]
    const before = tf.memory().numTensors
    for (const [options, message] of wrong) await assert.rejects(run([3, 4, 5], options), { name: 'RangeError', message })
    const two = makeInputs([[3, 4], [5, 6]]) // biome-ignore format: one line
    await assert.rejects(
      generateAll(model!, two, { promptLookupNumTokens: 2 }),
      /^RangeError: promptLookupNumTokens: expected one prompt/
    )
    disposeInputs(two)
    assert.equal(tf.memory().numTensors, before)
  })
})
