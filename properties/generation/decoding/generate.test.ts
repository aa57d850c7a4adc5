import assert from 'node:assert/strict'
import fc from 'fast-check'
import {
  disposeCache,
  type GenerateOptions,
  type GenerationResult,
  generate,
  generateAll
} from '../../../generation/decoding/generate.js'
import { tf } from '../../../lib/tf.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import { tokens } from '../../arbitraries/logits.js'
import { leavesNoTensor } from '../../laws/generator.js'
import { disposeInputs, makeInputs, type Prompt, tinyModel, vocabulary } from '../tiny.js'

const image = [1, 1, 1, 1]
/** Prompts with 0 to 2 images; the first token determines the images. */
const prompt: fc.Arbitrary<Prompt> = fc
  .tuple(tokens(vocabulary - 2), fc.nat(2), tokens(vocabulary - 2))
  .map(([before, images, after]) => [
    ...before.map((id) => id + 2),
    ...Array(images).fill(image).flat(),
    ...after.map((id) => id + 2)
  ])

const modes: Readonly<Record<string, GenerateOptions>> = {
  greedy: {},
  'greedy with penalties': { repetitionPenalty: 1.4, noRepeatNgramSize: 2, minNewTokens: 3, eosTokenIds: [5, 6, 7, 8] },
  sampled: { doSample: true, temperature: 1.5, topP: 0.9, seed: 11 },
  'three beams': { numBeams: 3, lengthPenalty: 0.7, eosTokenIds: [5, 6, 7, 8, 9, 10] },
  'sampled beams': { numBeams: 2, doSample: true, seed: 3, eosTokenIds: [5, 6] }
}

describe('generate', () => {
  let model: InternVL
  before(() => {
    model = tinyModel()
  })
  const run = async (prompts: readonly Prompt[], options: GenerateOptions, padding = 0): Promise<GenerationResult> => {
    const inputs = makeInputs(prompts, padding)
    try {
      return await generateAll(model, inputs, { maxNewTokens: 6, ...options })
    } finally {
      disposeInputs(inputs)
    }
  }

  it('cached steps take the token that one full forward finds most probable', () =>
    fc.assert(
      fc.asyncProperty(prompt, async (ids) => {
        const { sequences } = await run([ids], {})
        const inputs = makeInputs([ids])
        const best = tf.tidy(() => {
          // an image token in the answer is a token like any other
          const answer = model.embed({ inputIds: tf.tensor2d([...sequences[0]!], [1, sequences[0]!.length], 'int32') })
          const { logits } = model.decode(tf.concat([model.embed(inputs), answer], 1))
          return logits
            .argMax(-1)
            .dataSync()
            .slice(ids.length - 1, -1)
        })
        disposeInputs(inputs)
        assert.deepEqual(sequences[0], [...best])
      }),
      { numRuns: 15 }
    ))

  it('beyond the trained length too, with the rotary frequencies of one length', async () => {
    const rope = { rope_parameters: { rope_type: 'dynamic', rope_theta: 100, factor: 2 }, max_position_embeddings: 6 }
    const model = tinyModel(rope)
    for (const ids of [
      [2, 3, 4],
      [5, 6, 7, 8, 9, 10, 11]
    ]) {
      const inputs = makeInputs([ids])
      const { sequences } = await generateAll(model, inputs, { maxNewTokens: 8, ropeLength: 40 })
      const full = makeInputs([[...ids, ...sequences[0]!]])
      const best = tf.tidy(() =>
        model(full, { ropeLength: 40 })
          .logits.argMax(-1)
          .dataSync()
          .slice(ids.length - 1, -1)
      )
      assert.deepEqual(sequences[0], [...best])
      disposeInputs(inputs)
      disposeInputs(full)
    }
  })

  for (const [name, options] of Object.entries(modes)) {
    it(`${name}: a batch in any order, with any padding, gives each row its own answer`, () =>
      fc.assert(
        fc.asyncProperty(
          fc.uniqueArray(prompt, { minLength: 2, maxLength: 4, selector: String }),
          fc.nat(3),
          async (prompts, padding) => {
            const together = await run(prompts, options, padding)
            for (const [row, ids] of prompts.entries())
              assert.deepEqual((await run([ids], options)).sequences[0], together.sequences[row])
            const turned = await run([...prompts].reverse(), options)
            assert.deepEqual([...turned.sequences].reverse(), together.sequences)
          }
        ),
        { numRuns: 6 }
      ))

    it(`${name}: leaks no tensor when it ends, is left early, or fails`, async () => {
      const inputs = makeInputs([[2, ...image, 3], [4, 5, 6], [7]])
      const before = tf.memory().numTensors
      const o = { ...options, maxNewTokens: 5 }
      await leavesNoTensor(() => generate(model, inputs, o))
      await leavesNoTensor(
        () => generate(model, inputs, { ...o, returnCache: true }),
        ({ cache = [] }) => {
          for (const { kv } of cache) disposeCache(kv)
        }
      )
      let calls = 0
      const failing = (_: readonly number[], logits: Float32Array) => {
        if (++calls > 4) throw new Error('no further')
        return logits
      }
      await assert.rejects(generateAll(model, inputs, { ...o, returnCache: true, logitsProcessors: [failing] }), /no further/)
      assert.equal(tf.memory().numTensors, before, 'failed')
      disposeInputs(inputs)
    })

    it(`${name}: the steps joined are the sequences, with their log-probabilities`, async () => {
      const inputs = makeInputs([
        [2, ...image, 3],
        [4, 5, 6]
      ])
      const steps = generate(model, inputs, { ...options, maxNewTokens: 6, outputLogprobs: true })
      const [rows, logprobs]: [number[][], number[][]] = [
        [[], []],
        [[], []]
      ]
      while (true) {
        const { done, value } = await steps.next()
        if (done) {
          assert.deepEqual(value.sequences, rows)
          assert.deepEqual(value.logprobs, logprobs)
          break
        }
        for (const [row, token] of value.tokens.entries()) if (token !== undefined) rows[row]!.push(token)
        for (const [row, logprob] of value.logprobs!.entries()) if (logprob !== undefined) logprobs[row]!.push(logprob)
      }
      assert.ok(logprobs.flat().every((logprob) => logprob <= 0))
      disposeInputs(inputs)
    })
  }

  it('outputScores and outputLogits give the logits before and after the processors, of every row', async () => {
    const prompts = [
      [2, 3, 4],
      [5, 6],
      [7, 1, 1, 1, 1, 8]
    ]
    const options = { outputScores: true, outputLogits: true, outputLogprobs: true, maxNewTokens: 4 }
    const plain = await run(prompts, options)
    const penalized = await run(prompts, { ...options, suppressTokens: [plain.sequences[0]![0]!] })
    for (const { sequences, stepLogits, stepScores, logprobs } of [plain, penalized])
      for (const [row, ids] of sequences.entries()) {
        assert.deepEqual([stepLogits![row]!.length, stepScores![row]!.length], [ids.length, ids.length])
        for (const [step, token] of ids.entries()) {
          const [logits, scores] = [stepLogits![row]![step]!, stepScores![row]![step]!]
          assert.equal(scores.indexOf(Math.max(...scores)), token)
          const sum = logits.reduce((total, x) => total + Math.exp(x), 0)
          assert.ok(Math.abs(logits[token]! - Math.log(sum) - logprobs![row]![step]!) < 1e-4)
        }
      }
    assert.deepEqual(plain.stepLogits, plain.stepScores)
    assert.equal(penalized.stepScores![0]![0]![plain.sequences[0]![0]!], Number.NEGATIVE_INFINITY)
    assert.deepEqual(penalized.stepLogits![0]![0], plain.stepLogits![0]![0])
    await assert.rejects(
      async () => run(prompts, { exponentialDecayLengthPenalty: [1, 0] }),
      /exponentialDecayLengthPenalty: expected a pair/
    )
  })

  it('greedy log-probabilities are those of one full forward', async () => {
    const { sequences, logprobs } = await run([[2, 3, 4]], { outputLogprobs: true })
    const inputs = makeInputs([[2, 3, 4, ...sequences[0]!]])
    const table = tf.tidy(() => tf.logSoftmax(model(inputs).logits).arraySync() as number[][][])[0]!
    for (const [i, token] of sequences[0]!.entries()) assert.ok(Math.abs(table[2 + i]![token]! - logprobs![0]![i]!) < 1e-4)
    disposeInputs(inputs)
  })

  it('a row ends with its own end token, and the others go on', async () => {
    const free = await run(
      [
        [2, 3],
        [9, 9, 4]
      ],
      {}
    )
    const end = free.sequences[0]![2]!
    const { sequences, finishReasons } = await run(
      [
        [2, 3],
        [9, 9, 4]
      ],
      { eosTokenIds: [end] }
    )
    assert.deepEqual(
      sequences,
      free.sequences.map((ids) => ids.slice(0, ids.includes(end) ? ids.indexOf(end) + 1 : undefined))
    )
    assert.deepEqual(
      finishReasons,
      sequences.map((ids) => (ids.at(-1) === end ? 'eos' : 'length'))
    )
  })

  it('an abort signal stops after the current step and keeps the tokens', async () => {
    const free = await run([[2, 3]], {})
    const inputs = makeInputs([[2, 3]])
    const controller = new AbortController()
    const steps = generate(model, inputs, { maxNewTokens: 6, signal: controller.signal })
    await steps.next()
    await steps.next()
    controller.abort()
    const { done, value } = await steps.next()
    assert.ok(done)
    assert.deepEqual(value.sequences, [free.sequences[0]!.slice(0, 2)])
    assert.deepEqual(value.finishReasons, ['aborted'])
    const never = await generateAll(model, inputs, { signal: controller.signal })
    assert.deepEqual([never.sequences, never.finishReasons], [[[]], ['aborted']])
    disposeInputs(inputs)
  })

  it('an abort signal stops a beam search, whose best beam is the answer', async () => {
    const inputs = makeInputs([[2, 3]])
    const controller = new AbortController()
    setImmediate(() => controller.abort())
    const { sequences, finishReasons } = await generateAll(model, inputs, {
      maxNewTokens: 50,
      numBeams: 3,
      signal: controller.signal
    })
    assert.ok(sequences[0]!.length >= 1 && sequences[0]!.length < 50)
    assert.deepEqual(finishReasons, ['aborted'])
    disposeInputs(inputs)
  })

  it('several samples of one prompt differ, and a seed for each row is that row alone', async () => {
    const hot: GenerateOptions = { doSample: true, temperature: 3, topK: 0 }
    const { sequences } = await run([[2, 3]], { ...hot, seed: 5, numReturnSequences: 4 })
    assert.equal(new Set(sequences.map(String)).size, 4)
    const seeded = await run(
      [
        [2, 3],
        [2, 3]
      ],
      { ...hot, seed: [5, 6] }
    )
    assert.deepEqual(seeded.sequences[0], sequences[0])
    assert.notDeepEqual(seeded.sequences[1], sequences[0])
  })

  it('with enough beams, beam search finds the most probable of all answers', async () => {
    const suppressed = Array.from({ length: vocabulary - 3 }, (_, i) => i + 3) // three tokens remain
    const o: GenerateOptions = { suppressTokens: suppressed, maxNewTokens: 3 }
    const { sequences, scores } = await run([[2, 3]], { ...o, numBeams: 27, lengthPenalty: 0 })
    const all = [0, 1, 2].flatMap((a) => [0, 1, 2].flatMap((b) => [0, 1, 2].map((c) => [a, b, c])))
    const scoresOfAll = all.map((ids) => {
      const inputs = { inputIds: tf.tensor2d([[2, 3, ...ids]], [1, 5], 'int32') }
      const table = tf.tidy(() => tf.logSoftmax(model(inputs).logits).arraySync() as number[][][])[0]!
      tf.dispose(inputs.inputIds)
      return ids.reduce((sum, id, i) => sum + table[1 + i]![id]!, 0)
    })
    const best = scoresOfAll.indexOf(Math.max(...scoresOfAll))
    assert.deepEqual(sequences[0], all[best])
    assert.ok(Math.abs(scores![0]! - scoresOfAll[best]!) < 1e-4)
  })
})
