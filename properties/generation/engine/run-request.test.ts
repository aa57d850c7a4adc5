import assert from 'node:assert/strict'
import { setImmediate as tick } from 'node:timers/promises'
import fc from 'fast-check'
import { answer } from '../../../generation/answer.js'
import type { InternVLCheckpoint } from '../../../generation/checkpoint/load.js'
import type { EngineRequest, RequestOptions } from '../../../generation/engine/engine-types.js'
import { InputError, orThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import type { Messages } from '../../../processors/text/messages.js'
import { circle, shapes, squares } from '../../examples/demo-files.js'
import { loadDemo, localEngine } from './local-engine.js'

const ask = (text: string, ...images: readonly string[]): Messages => [
  { role: 'user', content: [...images.map((path) => ({ type: 'image', path }) as const), { type: 'text', text }] }
]
const questions: readonly Messages[] = [
  ask('Describe the image.', shapes),
  ask('How many circles are there?', shapes),
  ask('What color is the background?', circle),
  ask('Which picture has more shapes?', shapes, squares),
  ask('Who are you?')
]
const options: readonly RequestOptions[] = [
  { maxNewTokens: 12 },
  { maxNewTokens: 40 },
  { maxNewTokens: 10, doSample: true, temperature: 3, seed: 5, numReturnSequences: 2 },
  { maxNewTokens: 8, numBeams: 2 },
  { maxNewTokens: 10, promptLookupNumTokens: 3 }
]

describe('requests of an engine', () => {
  let internvl: InternVLCheckpoint
  let tensors: number
  before(async () => {
    internvl = await loadDemo()
  })
  after(() => internvl.dispose())
  beforeEach(() => {
    tensors = tf.memory().numTensors
  })
  afterEach(() => assert.equal(tf.memory().numTensors, tensors, 'no tensor is left'))

  it('answers are those of `answer`, with any other requests, with and without a prefix cache', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(questions.length - 1), fc.nat(options.length - 1), fc.nat(15)), { minLength: 1, maxLength: 6 }),
        fc.constantFrom(0, 2 ** 20, 2 ** 28),
        fc.constantFrom(7, 256),
        async (arrivals, prefixCacheBytes, prefillChunkSize) => {
          const { run, context } = localEngine(internvl, { prefixCacheBytes, prefillChunkSize })
          const results = await Promise.all(
            arrivals.map(async ([question, option, delay]) => {
              for (let i = 0; i < delay; i++) await tick()
              return run({ messages: questions[question]!, options: options[option]! })
            })
          )
          context.prefixes.clear()
          for (const [i, [question, option]] of arrivals.entries()) {
            const { texts, result } = await answer(internvl, [questions[question]!], options[option]!)
            const { choices, usage } = results[i]!
            assert.deepEqual(
              choices.map(({ tokens }) => tokens),
              result.sequences
            )
            assert.deepEqual(
              choices.map(({ text }) => text),
              texts
            )
            assert.equal(usage.newTokens, result.sequences.flat().length)
          }
        }
      ),
      { numRuns: 8 }
    ))

  it('the next turn of a conversation computes only its new tokens, and encodes no image again', async () => {
    const calls = { imageFeatures: 0, decode: 0 }
    const { run, context } = localEngine(internvl, {
      prefixCacheBytes: 2 ** 28,
      onCall: (name, size) => {
        calls[name] += size
      }
    })
    const first = await run({ messages: questions[0]! })
    assert.deepEqual([first.usage.prompt.reused, first.usage.encodedTiles], [0, 1])
    Object.assign(calls, { imageFeatures: 0, decode: 0 })
    const messages: Messages = [
      ...questions[0]!,
      { role: 'assistant', content: first.choices[0]!.text },
      { role: 'user', content: 'How many circles are there?' }
    ]
    const second = await run({ messages })
    const { prompt, newTokens, encodedTiles } = second.usage
    // keys and values of the last token of the first answer were not computed
    assert.equal(prompt.reused, first.usage.prompt.total + first.usage.newTokens - 1)
    assert.equal(prompt.computed, prompt.total - prompt.reused)
    assert.equal(calls.decode, prompt.computed + newTokens - 1)
    assert.deepEqual([encodedTiles, calls.imageFeatures], [0, 0])
    assert.equal(second.choices[0]!.text, (await answer(internvl, [messages])).texts[0])
    assert.equal(context.prefixes.size().entries, 1, 'the longer conversation replaces its beginning')
    context.prefixes.clear()
  })

  it('requests share keys and values of one type only', async () => {
    const { run, context } = localEngine(internvl, { prefixCacheBytes: 2 ** 28 })
    const messages = [{ role: 'user', content: 'Name a color, please.' }] as const
    const reused = async (options: object) =>
      (await run({ messages, options: { maxNewTokens: 2, ...options } })).usage.prompt.reused
    assert.equal(await reused({ cacheImplementation: 'quantized' }), 0)
    assert.equal(await reused({}), 0)
    assert.ok((await reused({ kvCache: 'int8' })) > 0)
    assert.ok((await reused({ cacheImplementation: 'dynamic' })) > 0)
    context.prefixes.clear()
  })

  it('two images of one size share no keys and values, and an image that was seen is not encoded again', async () => {
    const { run, context } = localEngine(internvl, { prefixCacheBytes: 2 ** 28 })
    const question = 'Describe the image.'
    const results = [
      await run({ messages: ask(question, shapes) }),
      await run({ messages: ask(question, squares) }),
      await run({ messages: ask(`${question} Now.`, squares, shapes) })
    ]
    const [a, b, c] = results.map(({ usage }) => usage)
    const { ids } = await orThrow(internvl.processor.encodeBatch([ask(question, shapes)]))
    const textBefore = ids[0]!.indexOf(internvl.generation.imageTokenId!)
    assert.equal(b!.prompt.reused, textBefore)
    assert.equal(
      c!.prompt.reused,
      textBefore + 16 + 2,
      'the first image with its end token and line break is that of the second request'
    )
    assert.deepEqual([a, b, c].map((usage) => usage!.encodedTiles), [1, 1, 0]) // biome-ignore format: one line
    assert.equal(results[1]!.choices[0]!.text, (await answer(internvl, [ask(question, squares)])).texts[0])
    context.prefixes.clear()
  })

  for (const [phase, chunk, calls] of [
    ['encoding of the first image', 256, { imageFeatures: 1, decode: 0 }],
    ['second chunk of the prompt', 8, { imageFeatures: 3, decode: 2 }],
    ['third decoding step', 256, { imageFeatures: 3, decode: 3 }]
  ] as const)
    it(`an abort in the ${phase} ends the request after that piece of work`, async () => {
      const made = { imageFeatures: 0, decode: 0 }
      const controller = new AbortController()
      const last = calls.decode > 0 ? 'decode' : 'imageFeatures'
      const { run, context } = localEngine(internvl, {
        prefillChunkSize: chunk,
        onCall: (name) => {
          made[name]++
          if (name === last && made[name] === calls[name]) controller.abort()
        }
      })
      const messages = ask('Which picture has more shapes?', shapes, squares, circle)
      const { choices } = await run({ messages, options: { eosTokenIds: [] }, signal: controller.signal })
      assert.equal(choices[0]!.finishReason, 'aborted')
      for (let i = 0; i < 3; i++) await tick()
      assert.deepEqual(made, calls)
      assert.equal(context.scheduler.counts().rows, 0)
    })

  it('stop strings, log-probabilities and the context length', async () => {
    const { run } = localEngine(internvl)
    const stopped = await run({ messages: questions[0]!, options: { stopStrings: ['black'], topLogprobs: 2 } })
    const [{ text, finishReason, logprobs, topLogprobs, tokens }] = stopped.choices as [(typeof stopped.choices)[number]]
    assert.equal(text, 'There is a green circle at the top left, a ')
    assert.equal(finishReason, 'stop')
    assert.deepEqual(
      logprobs?.map(({ token }) => token),
      tokens
    )
    assert.deepEqual(
      topLogprobs?.map((top) => top[0]),
      logprobs
    ) // greedy search takes the most probable token
    const o = { outputLogprobs: true, stopStrings: ['black'] }
    const { result } = await answer(internvl, [questions[0]!], o)
    assert.deepEqual(
      logprobs?.map(({ logprob }) => logprob),
      result.logprobs?.[0]
    )
    const short = await run({ promptIds: Array<number>(4090).fill(5), options: { maxNewTokens: 50, eosTokenIds: [] } })
    assert.deepEqual([short.choices[0]!.finishReason, short.usage.newTokens], ['length', 6])
  })

  it('errors of the input name it', async () => {
    const { run } = localEngine(internvl)
    const failures: readonly (readonly [EngineRequest, RegExp, new (...a: never[]) => Error])[] = [
      [{ messages: ask('x', '/no/such.png') }, /\/no\/such\.png/, InputError],
      [{ messages: questions[0]!, options: { topP: 2 } }, /topP/, RangeError],
      [{ messages: questions[0]!, options: { numBeams: 2, topLogprobs: 3 } }, /topLogprobs/, RangeError],
      [{ messages: questions[0]!, logitsProcessors: [{ name: 'grammar' }] }, /no processor is called "grammar"/, RangeError],
      [{}, /one of messages, prompt and promptIds/, RangeError],
      [{ promptIds: [433] }, /promptIds: expected token ids from 0 to 432, got 433/, RangeError],
      [{ promptIds: Array<number>(5000).fill(5) }, /5000 tokens/, InputError]
    ]
    for (const [request, message, type] of failures)
      await assert.rejects(run(request), (error: unknown) => error instanceof type && message.test(error.message))
  })
})
