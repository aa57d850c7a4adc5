import assert from 'node:assert/strict'
import { join } from 'node:path'
import fc from 'fast-check'
import { chat } from '../../../generation/chat/chat.js'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { disposeCache, type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { positionAt, visualPositions } from '../../../models/internvl/v2pe.js'
import { tokens } from '../../arbitraries/logits.js'
import { disposeInputs, imageToken, makeInputs, type Prompt, tinyModel, vocabulary } from '../tiny.js'

const image = [1, 1, 1, 1]
const words = tokens(vocabulary - 2).map((ids) => ids.map((id) => id + 2))
const prompt: fc.Arbitrary<Prompt> = fc.tuple(words, words).map(([before, after]) => [...before, ...image, ...after])
const delta = fc.constantFrom(1 / 2, 1 / 4, 1 / 256)

describe('visualDelta', () => {
  let model: InternVL
  before(() => {
    model = tinyModel()
  })
  const run = async (prompts: readonly Prompt[], options: GenerateOptions) => {
    const inputs = makeInputs(prompts)
    const o = { maxNewTokens: 4, imageTokenId: imageToken, suppressTokens: [imageToken], outputLogprobs: true, ...options }
    return generateAll(model, inputs, o).finally(() => disposeInputs(inputs))
  }

  for (const [name, options] of Object.entries<GenerateOptions>({ 'row by row': {}, 'with beams': { numBeams: 2 } })) {
    it(`${name}: delta 1 equals no delta, bit for bit`, () =>
      fc.assert(
        fc.asyncProperty(prompt, words, async (a, b) => {
          const [one, none] = [await run([a, b], { ...options, visualDelta: 1 }), await run([a, b], options)]
          assert.deepEqual(one, none)
        }),
        { numRuns: 5 }
      ))
  }

  it('cached steps take the token that one full forward at these positions finds most probable', () =>
    fc.assert(
      fc.asyncProperty(prompt, delta, async (ids, visualDelta) => {
        const { sequences, logprobs } = await run([ids], { visualDelta })
        const inputs = makeInputs([[...ids, ...sequences[0]!]])
        const positions = visualPositions(ids, imageToken, visualDelta)
        const positionIds = [Array.from({ length: inputs.inputIds.size }, (_, i) => positionAt(positions, i))]
        const full = tf.tidy(() => tf.logSoftmax(model(inputs, { positionIds }).logits).arraySync() as number[][][])[0]!
        disposeInputs(inputs)
        for (const [i, token] of sequences[0]!.entries())
          assert.ok(Math.abs(full[ids.length - 1 + i]![token]! - logprobs![0]![i]!) < 1e-4)
      }),
      { numRuns: 8 }
    ))

  it('a cache is reused only with the same delta', () =>
    fc.assert(
      fc.asyncProperty(prompt, words, fc.constantFrom(1, 1 / 4), async (ids, more, before) => {
        const first = await run([ids], { visualDelta: before, returnCache: true })
        const next = [...ids, ...first.sequences[0]!, ...more]
        const [again, fresh] = [
          await run([next], { visualDelta: 1 / 4, cache: first.cache }),
          await run([next], { visualDelta: 1 / 4 })
        ]
        for (const { kv } of first.cache!) disposeCache(kv)
        assert.deepEqual(again.sequences, fresh.sequences)
        for (const [i, logprob] of fresh.logprobs![0]!.entries()) assert.ok(Math.abs(logprob - again.logprobs![0]![i]!) < 1e-4)
      }),
      { numRuns: 8 }
    ))

  it("'auto' is the largest power of two with which prompt and answer fit, independent of the batch", async () => {
    const ids = [2, ...image, 3, 4]
    // 7 positions by 1, 5 by 1/2 (the image ends at 2), 4 by 1/4 or less; 4 more for the answer
    for (const [maxPositionEmbeddings, fixed] of [
      [11, 1],
      [10, 1 / 2],
      [8, 1 / 4]
    ] as const) {
      const auto: GenerateOptions = { visualDelta: 'auto', maxPositionEmbeddings }
      const [both, alone] = [await run([ids, [5, 6]], auto), await run([ids], { visualDelta: fixed })]
      assert.deepEqual(both.sequences[0], alone.sequences[0])
      assert.ok(Math.abs(both.logprobs![0]![0]! - alone.logprobs![0]![0]!) < 1e-4)
    }
    const [one, half] = [await run([ids], {}), await run([ids], { visualDelta: 1 / 2 })]
    assert.ok(Math.abs(one.logprobs![0]![0]! - half.logprobs![0]![0]!) > 1e-3, 'it makes a difference')
    const long = { visualDelta: 'auto', maxPositionEmbeddings: 3 } as const
    await assert.rejects(run([ids], long), /InputError: inputIds: the prompt has 7 tokens at 4 positions, the model has 3/)
  })

  it('the delta may change from turn to turn', async () => {
    const internvl = await load()
    const images = [join(demoModel, '../../generation/demo/shapes.png')]
    const session = chat(internvl, { visualDelta: 1 / 4 })
    const first = await session.ask('What is this?', { images, maxNewTokens: 8 })
    const again = await session.ask('And what else?', { maxNewTokens: 8 })
    assert.ok(again.reusedTokens >= first.promptTokens, 'the same delta')
    const changed = await session.ask('Which color?', { visualDelta: 1 / 2, maxNewTokens: 8 })
    assert.ok(changed.reusedTokens < first.promptTokens, 'another delta')
    const fresh = chat(internvl, { visualDelta: 1 / 2, history: session.history.slice(0, -2) })
    assert.equal((await fresh.ask('Which color?', { maxNewTokens: 8 })).text, changed.text)
    for (const one of [session, fresh]) one.dispose()
    internvl.dispose()
  })
})
