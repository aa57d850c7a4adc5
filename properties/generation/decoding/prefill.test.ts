import assert from 'node:assert/strict'
import { streamAnswers } from '../../../generation/answer.js'
import { chat } from '../../../generation/chat/chat.js'
import { type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { disposeCache, type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { featureCache } from '../../../generation/feature-cache.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import type { Messages } from '../../../processors/text/messages.js'
import { disposeInputs, imageToken, makeInputs, tinyModel } from '../tiny.js'

const image = [imageToken, imageToken, imageToken, imageToken]
const text = (length: number, seed: number): readonly number[] =>
  Array.from({ length }, (_, i) => 2 + ((i * seed + (i >> 3)) % 37))

/** The model with counts of its tiles and forwards, and a function that is called before each forward. */
const watched = (model: InternVL, before: (event: 'tiles' | 'forward', size: number) => void): InternVL =>
  Object.assign(((...args) => model(...args)) as InternVL, {
    imageFeatures: (pixels: tf.Tensor4D) => {
      before('tiles', pixels.shape[0])
      return model.imageFeatures(pixels)
    },
    embed: model.embed,
    decode: (...[embeds, options]: Parameters<InternVL['decode']>) => {
      before('forward', embeds.shape[1])
      return model.decode(embeds, options)
    }
  })

describe('prefill with an abort signal', () => {
  const model = tinyModel({ max_position_embeddings: 4096 })
  const { signal } = new AbortController()

  const modes: Readonly<Record<string, GenerateOptions>> = {
    greedy: {},
    sampling: { doSample: true, seed: 3, temperature: 2 },
    beams: { numBeams: 3 }
  }
  for (const [name, options] of Object.entries(modes))
    it(`${name}: a prompt in chunks has the answer of one forward, in a batch and with a cache`, async () => {
      const prompts = [[2, ...image, ...text(1300, 7)], text(30, 5), [...text(700, 3), ...image, 9]]
      const inputs = makeInputs(prompts)
      const before = tf.memory().numTensors
      const o = { ...options, maxNewTokens: 8, imageTokenId: imageToken }
      const sizes: number[] = []
      const spy = watched(model, (event, size) => event === 'forward' && size > 1 && sizes.push(size))
      const whole = await generateAll(model, inputs, o)
      const chunked = await generateAll(spy, inputs, { ...o, signal, returnCache: true })
      assert.deepEqual(sizes, [435, 435, 435])
      assert.deepEqual(chunked.sequences, whole.sequences)
      const longer = makeInputs(prompts.map((ids, row) => [...ids, ...text(40, 11 + row)]))
      const cache = chunked.cache!
      const [a, b] = [await generateAll(model, longer, o), await generateAll(model, longer, { ...o, cache, signal })]
      assert.deepEqual(b.sequences, a.sequences)
      for (const { kv } of cache) disposeCache(kv)
      disposeInputs(longer)
      assert.equal(tf.memory().numTensors, before)
      disposeInputs(inputs)
    })

  it('stops within one chunk of tokens, keeps nothing, and all rows are aborted', async () => {
    const inputs = makeInputs([text(2000, 7), text(1000, 5)])
    const before = tf.memory().numTensors
    for (const numBeams of [1, 2])
      for (let stop = 1; stop <= 4; stop++) {
        const controller = new AbortController()
        let forwards = 0
        const spy = watched(model, () => {
          if (++forwards === stop) setTimeout(() => controller.abort()) // needs the event loop
        })
        const { sequences, finishReasons } = await generateAll(spy, inputs, {
          numBeams,
          maxNewTokens: 1,
          signal: controller.signal
        })
        assert.ok(forwards <= stop + 1, `${forwards} forwards`)
        if (stop < 3)
          assert.deepEqual({ sequences, finishReasons }, { sequences: [[], []], finishReasons: ['aborted', 'aborted'] })
        assert.equal(tf.memory().numTensors, before)
      }
    disposeInputs(inputs)
  })

  describe('in the vision encoder', () => {
    let internvl: InternVLCheckpoint
    before(async () => {
      internvl = await load()
    })
    after(() => internvl.dispose())

    const raw = (seed: number) => ({
      data: Uint8Array.from({ length: 112 * 112 * 3 }, (_, i) => (i * seed) % 251),
      width: 112,
      height: 112,
      channels: 3 as const
    })
    const images = Array.from({ length: 40 }, (_, i) => raw(i + 3))
    const content = [
      ...images.map((image) => ({ type: 'image', image }) as const),
      { type: 'text', text: 'What is here?' } as const
    ]
    const messages: Messages = [{ role: 'user', content }]

    it('stops within one chunk of tiles, when answering and in a chat', async () => {
      const before = tf.memory().numTensors
      for (const way of ['answer', 'chat']) {
        const controller = new AbortController()
        let [chunks, forwards] = [0, 0]
        const model = watched(internvl.model, (event) => {
          if (event === 'forward') forwards++
          else if (++chunks === 1) setTimeout(() => controller.abort())
        })
        const spy = { ...internvl, model, features: featureCache(model) }
        const options = { maxNewTokens: 2, maxPatches: 1, signal: controller.signal }
        if (way === 'answer') {
          const next = await streamAnswers(spy, [messages], options).next()
          assert.ok(next.done && next.value.result.finishReasons[0] === 'aborted')
        } else {
          const session = chat(spy, { maxPatches: 1 })
          const turn = await session.ask('What is here?', { images, ...options })
          assert.deepEqual([turn.text, turn.finishReason], ['', 'aborted'])
          session.dispose()
        }
        assert.ok(chunks <= 2, `${chunks} chunks`)
        assert.equal(forwards, 0)
        assert.equal(tf.memory().numTensors, before)
      }
    })

    it('gives the same answer in chunks', async () => {
      const options = { maxNewTokens: 6, maxPatches: 1 }
      const texts = []
      for (const o of [options, { ...options, signal: new AbortController().signal }]) {
        const stream = streamAnswers(internvl, [messages], o)
        for (let next = await stream.next(); ; next = await stream.next())
          if (next.done) {
            texts.push(next.value.result.sequences)
            break
          }
      }
      assert.deepEqual(texts[0], texts[1])
    })
  })
})
