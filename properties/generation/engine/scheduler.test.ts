import assert from 'node:assert/strict'
import { setImmediate as tick } from 'node:timers/promises'
import fc from 'fast-check'
import { disposeCache, type GenerateOptions, generateAll, runToEnd } from '../../../generation/decoding/generate.js'
import { prepareGeneration } from '../../../generation/decoding/prepare-generation.js'
import { createScheduler, type Scheduler } from '../../../generation/engine/process/scheduler.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { tokens } from '../../arbitraries/logits.js'
import { disposeInputs, imageToken, makeInputs, type Prompt, tinyModel, vocabulary } from '../tiny.js'

const image = [1, 1, 1, 1]
const words = tokens(vocabulary - 2).map((ids) => ids.map((id) => id + 2))
const prompts: fc.Arbitrary<Prompt> = fc
  .tuple(fc.boolean(), words, words)
  .map(([hasImage, before, after]) => [2, ...before, ...(hasImage ? image : []), ...after])

const options: fc.Arbitrary<GenerateOptions> = fc.oneof(
  fc.constant({}),
  fc.record({ repetitionPenalty: fc.constantFrom(1.3), topLogprobs: fc.constantFrom(0, 3) }),
  fc.record({ doSample: fc.constant(true), temperature: fc.constant(2), seed: fc.nat() }),
  fc.record({ doSample: fc.constant(true), numReturnSequences: fc.constant(2), seed: fc.nat() })
)

interface Case {
  readonly ids: Prompt
  readonly options: GenerateOptions
  /** Turns of the event loop before the request arrives. */
  readonly delay: number
  readonly maxNewTokens: number
  /** Tokens after which the request is aborted. */
  readonly abortAfter: number | undefined
}
const cases = fc.array(
  fc.record({
    ids: prompts,
    options,
    delay: fc.nat(12),
    maxNewTokens: fc.integer({ min: 1, max: 9 }),
    abortAfter: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined, freq: 3 })
  }),
  { minLength: 1, maxLength: 6 }
)

const common: GenerateOptions = { imageTokenId: imageToken, suppressTokens: [imageToken], eosTokenIds: [7, 8] }

describe('scheduler', () => {
  let model: InternVL
  before(() => {
    model = tinyModel()
  })

  const alone = async ({ ids, options, maxNewTokens }: Case) => {
    const inputs = makeInputs([ids])
    try {
      return await generateAll(model, inputs, { ...common, ...options, maxNewTokens })
    } finally {
      disposeInputs(inputs)
    }
  }

  const joined = async (scheduler: Scheduler, { ids, options, delay, maxNewTokens, abortAfter }: Case) => {
    for (let i = 0; i < delay; i++) await tick()
    const controller = new AbortController()
    const { pause } = scheduler.turns.join('first', controller.signal)
    const inputs = makeInputs([ids])
    const o = { ...common, ...options, maxNewTokens, pause, prefillChunkSize: 3, signal: controller.signal }
    let steps = 0
    try {
      return await runToEnd(scheduler.decode('', inputs, prepareGeneration(inputs, o)), () => {
        if (++steps === abortAfter) controller.abort()
      })
    } finally {
      disposeInputs(inputs)
    }
  }

  it('every request gets the tokens that it gets alone, with any others that join and leave', () =>
    fc.assert(
      fc.asyncProperty(cases, async (requests) => {
        const before = tf.memory().numTensors
        const scheduler = createScheduler(model)
        const results = await Promise.all(requests.map((request) => joined(scheduler, request)))
        await tick() // rows of aborted requests leave at the next step
        assert.equal(tf.memory().numTensors, before)
        assert.equal(scheduler.counts().rows, 0)
        for (const [i, request] of requests.entries()) {
          const expected = await alone(request)
          const { sequences, finishReasons } = results[i]!
          if (finishReasons.includes('aborted')) {
            assert.ok(request.abortAfter !== undefined)
            for (const [row, ids] of sequences.entries()) assert.deepEqual(ids, expected.sequences[row]!.slice(0, ids.length))
          } else {
            assert.deepEqual(sequences, expected.sequences)
            assert.deepEqual(finishReasons, expected.finishReasons)
          }
        }
      }),
      { numRuns: 25 }
    ))

  it('requests that arrive together share their forwards', async () => {
    const scheduler = createScheduler(model)
    const request: Case = { ids: [2, 3, 4], options: { eosTokenIds: [] }, delay: 0, maxNewTokens: 12, abortAfter: undefined }
    await Promise.all(Array.from({ length: 4 }, () => joined(scheduler, request)))
    const { steps, decodedRows } = scheduler.counts()
    assert.equal(decodedRows, 4 * 11)
    assert.ok(steps < 2 * 11, `${steps} steps`)
  })

  it('a request whose logits are no numbers fails alone', async () => {
    const broken: GenerateOptions = { logitsProcessors: [() => new Float32Array(vocabulary).fill(Number.NaN)], doSample: true }
    const scheduler = createScheduler(model)
    const good: Case = { ids: [2, 3], options: {}, delay: 0, maxNewTokens: 6, abortAfter: undefined }
    const before = tf.memory().numTensors
    const [failed, answered] = await Promise.allSettled([
      joined(scheduler, { ...good, options: broken }),
      joined(scheduler, good)
    ])
    assert.equal(failed.status, 'rejected')
    assert.match(String(failed.status === 'rejected' && failed.reason), /no token can be sampled/)
    assert.deepEqual(answered.status === 'fulfilled' && answered.value.sequences, (await alone(good)).sequences)
    assert.equal(tf.memory().numTensors, before)
  })

  it('caches of rows that end at different steps are those of generate', async () => {
    const scheduler = createScheduler(model)
    const options: GenerateOptions = { returnCache: true }
    const requests = [2, 3, 5].map(
      (maxNewTokens, delay): Case => ({ ids: [2, 3 + delay, 9], options, delay, maxNewTokens, abortAfter: undefined })
    )
    const results = await Promise.all(requests.map((request) => joined(scheduler, request)))
    for (const [i, request] of requests.entries()) {
      const expected = await alone(request)
      const [cache, other] = [results[i]!.cache![0]!, expected.cache![0]!]
      assert.deepEqual([cache.ids, cache.positions], [other.ids, other.positions])
      const [a, b] = [cache.kv[1]!.key, other.kv[1]!.key]
      assert.deepEqual(a.shape, b.shape)
      assert.ok(tf.tidy(() => a.sub(b).abs().max().dataSync()[0]!) < 1e-4)
      for (const { kv } of [cache, other]) disposeCache(kv)
    }
  })

  it('rows whose rotary frequencies depend on the batch are decoded apart', async () => {
    const scheduler = createScheduler(model)
    const inputs = [makeInputs([[2, 3]]), makeInputs([[2, 3]])]
    const o = { ...common, eosTokenIds: [], maxNewTokens: 5 }
    await Promise.all(
      inputs.map((input, i) => runToEnd(scheduler.decode(`key ${i}`, input, prepareGeneration(input, o)), () => undefined))
    )
    for (const input of inputs) disposeInputs(input)
    const { steps, decodedRows } = scheduler.counts()
    assert.deepEqual([steps, decodedRows], [4, 8])
  })
})
