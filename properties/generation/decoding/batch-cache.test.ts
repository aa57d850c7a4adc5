import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { RowCache } from '../../../generation/decoding/batch-cache.js'
import { disposeCache, type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { tokens } from '../../arbitraries/logits.js'
import { countingModel, disposeInputs, imageToken, makeInputs, type Prompt, tinyModel, vocabulary } from '../tiny.js'

const image = [1, 1, 1, 1]
const words = tokens(vocabulary - 2).map((ids) => ids.map((id) => id + 2))
const turn: fc.Arbitrary<Prompt> = fc.tuple(fc.boolean(), words).map(([hasImage, ids]) => [...(hasImage ? image : []), ...ids])

describe('cache', () => {
  let model: InternVL
  before(() => {
    model = tinyModel()
  })
  /** Answers without image tokens, which would need images in the next turn. */
  const run = async (prompts: readonly Prompt[], options: GenerateOptions, by = model) => {
    const inputs = makeInputs(prompts)
    try {
      return await generateAll(by, inputs, {
        maxNewTokens: 4,
        imageTokenId: imageToken,
        suppressTokens: [imageToken],
        ...options
      })
    } finally {
      disposeInputs(inputs)
    }
  }
  const free = (caches: readonly (RowCache | undefined)[] = []) => {
    for (const cache of caches) if (cache) disposeCache(cache.kv)
  }

  it('conversations in one batch, each with its own cache, answer as without caches', () =>
    fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(words, turn, turn, fc.nat(2)), { minLength: 1, maxLength: 3 }), async (rows) => {
        const before = tf.memory().numTensors
        const first = await run(
          rows.map(([start, a]) => [...start, ...a]),
          { returnCache: true }
        )
        // some rows continue their answer, some change the answer, some have no cache
        const next = rows.map(([start, a, b, kind], i) => [...start, ...a, ...first.sequences[i]!.slice(0, 4 - kind), ...b])
        const cache = first.cache!.map((c, i) => (rows[i]![3] === 2 && i > 0 ? undefined : c))
        const second = await run(next, { cache, returnCache: true })
        assert.deepEqual(second.sequences, (await run(next, {})).sequences)
        for (const [i, { ids, kv }] of second.cache!.entries()) {
          assert.deepEqual(ids, [...next[i]!, ...second.sequences[i]!].slice(0, -1))
          assert.equal(kv[0]!.key.shape[2], ids.length)
        }
        free(first.cache)
        free(second.cache)
        assert.equal(tf.memory().numTensors, before)
      }),
      { numRuns: 12 }
    ))

  it('a conversation of ten turns about one image encodes the image once, and a turn computes only its new tokens', async () => {
    const { counts, model: counted } = countingModel(model)
    let ids: readonly number[] = [2, ...image]
    let cache: readonly RowCache[] | undefined
    for (let i = 0; i < 10; i++) {
      const question = [3, 4 + i, 5]
      ids = [...ids, ...question]
      counts.tokens = 0
      const { sequences, cache: next } = await run([ids], { cache, returnCache: true }, counted)
      free(cache)
      cache = next
      ids = [...ids, ...sequences[0]!]
      // the last generated token was not yet computed: it is computed with the question
      const expected = (i === 0 ? 5 : 1) + question.length + sequences[0]!.length - 1
      assert.equal(counts.tokens, expected, `turn ${i}`)
    }
    free(cache)
    assert.equal(counts.tiles, 1)
  })

  it('a new image is encoded alone', async () => {
    const { counts, model: counted } = countingModel(model)
    const start = [2, ...image, 3]
    const first = await run([start], { returnCache: true }, counted)
    counts.tiles = 0
    const next = [...start, ...first.sequences[0]!, ...image, 7]
    const { sequences } = await run([next], { cache: first.cache }, counted)
    assert.equal(counts.tiles, 1)
    assert.deepEqual(sequences, (await run([next], {})).sequences)
    free(first.cache)
  })

  for (const [name, options] of Object.entries<GenerateOptions>({
    greedy: {},
    sampled: { doSample: true, seed: 4, temperature: 2 }
  })) {
    it(`${name}: stopped and continued, with or without its cache, the answer is the uninterrupted one`, () =>
      fc.assert(
        fc.asyncProperty(turn, fc.integer({ min: 1, max: 5 }), async (ids, stop) => {
          const start = [2, ...ids]
          const whole = (await run([start], { ...options, maxNewTokens: 6 })).sequences[0]!
          const part = await run([start], { ...options, maxNewTokens: stop, returnCache: true })
          const next = [...start, ...part.sequences[0]!]
          for (const cache of [undefined, part.cache]) {
            const { sequences } = await run([next], { ...options, maxNewTokens: 6 - stop, cache })
            assert.deepEqual([...part.sequences[0]!, ...sequences[0]!], whole)
          }
          free(part.cache)
        }),
        { numRuns: 8 }
      ))
  }

  it('a beam search returns the cache of the prompt', async () => {
    const { cache } = await run(
      [
        [2, ...image, 3],
        [4, 5]
      ],
      { numBeams: 2, returnCache: true }
    )
    assert.deepEqual(
      cache!.map(({ ids }) => ids),
      [
        [2, ...image, 3],
        [4, 5]
      ]
    )
    assert.deepEqual((await run([[4, 5, 6]], { cache: [cache![1]] })).sequences, (await run([[4, 5, 6]], {})).sequences)
    free(cache)
  })

  it('caches of two types in one batch are an error and leave no tensor', async function () {
    const first = async (kvCache: 'bfloat16' | 'float32') =>
      (await run([[2, 3, 4, 5]], { kvCache, returnCache: true })).cache![0]!
    const cache = [await first('bfloat16'), await first('float32')]
    const before = tf.memory().numTensors
    try {
      if (cache[0]!.kv[0]!.type === 'float32') return this.skip() // an engine without packed caches
      const next = [[2, 3, 4, 5, 6], [2, 3, 4, 5, 7]] // biome-ignore format: one line
      await assert.rejects(run(next, { cache }), /expected rows of one type, got bfloat16 and float32/)
      assert.equal(tf.memory().numTensors, before)
    } finally {
      free(cache)
    }
  })
})
