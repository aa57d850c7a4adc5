import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { load } from '../../../../generation/checkpoint/load.js'
import { generateAll } from '../../../../generation/decoding/generate.js'
import type { GenerateOptions } from '../../../../generation/decoding/generation-options.js'
import { watermark } from '../../../../generation/decoding/logits-processors.js'
import { synthIdBits } from '../../../../generation/decoding/watermark/synth-id.js'
import { watermarkDetector } from '../../../../generation/decoding/watermark/watermark-detector.js'
import type { GreenListWatermark, SynthIdWatermark } from '../../../../generation/decoding/watermark/watermarking-config.js'
import { tf } from '../../../../lib/tf.js'

interface Reference {
  readonly ids: readonly number[]
  readonly vocabSize: number
  readonly green: readonly { config: GreenListWatermark; outputs: number[][]; detections: (Record<string, number | boolean> & { ignoreRepeatedNgrams: boolean })[] }[]
  readonly synth: readonly { config: SynthIdWatermark; answer: number[]; outputs: number[][]; bits: number[][] }[]
  readonly guided: readonly { prompt: number[]; negative: number[] | null; scale: number; options: GenerateOptions; tokens: number[]; scores: number[][] }[]
  readonly healed: readonly { text: string; ids: number[]; healed: number[] }[]
} // biome-ignore format: one line a list
const reference: Reference = JSON.parse(
  readFileSync(new URL('../../../reference/decoding/watermark.json', import.meta.url), 'utf8')
)
const { ids, vocabSize } = reference

const logitsAt = (step: number) => Float32Array.from({ length: vocabSize }, (_, i) => 3 * Math.sin(0.9 * i + 0.7 * step))
const assertNear = (actual: ArrayLike<number>, expected: readonly number[], what: string) => {
  for (const [i, x] of expected.entries())
    assert.ok(Math.abs(actual[i]! - x) <= 2e-4 * Math.max(1, Math.abs(x)), `${what}: ${i}: ${actual[i]} for ${x}`)
}

/** Results of Transformers 5.24, by properties/reference/decoding/make_watermark.py. */
describe('watermarks, guidance and token healing, beside Transformers', () => {
  let internvl: Awaited<ReturnType<typeof load>>
  before(async () => {
    internvl = await load()
  })
  after(() => internvl.dispose())

  it('green lists: the same logits', () => {
    for (const { config, outputs } of reference.green)
      for (const [i, expected] of outputs.entries())
        assertNear(watermark(config)(ids.slice(0, 4 + i), logitsAt(4 + i), 0), expected, JSON.stringify(config))
  })

  it('the detector: the same counts, z-scores and p-values', () => {
    for (const { config, detections } of reference.green)
      for (const { ignoreRepeatedNgrams, ...expected } of detections) {
        const found = watermarkDetector({ vocabSize, watermarkingConfig: config, bosTokenId: 5, ignoreRepeatedNgrams })([
          ...ids,
          ...ids,
          ...ids
        ])
        for (const [name, value] of Object.entries(expected)) {
          const actual = found[name as keyof typeof found]
          if (typeof value === 'boolean') assert.equal(actual, value, name)
          else assert.ok(Math.abs(Number(actual) - value) < 1e-9, `${name}: ${actual} for ${value}`)
        }
      }
    assert.throws(
      () => watermarkDetector({ vocabSize, watermarkingConfig: { bias: Number.NaN } }),
      /watermarkingConfig: bias: expected a number/
    )
    assert.throws(
      () => watermarkDetector({ vocabSize, watermarkingConfig: {} })([3]),
      /ids: expected more than contextWidth \(1\) tokens/
    )
  })

  it('SynthID: the same logits and bits', () => {
    for (const { config, answer, outputs, bits } of reference.synth) {
      for (const [n, expected] of outputs.entries()) {
        const actual = watermark(config)([...ids, ...answer.slice(0, n)], logitsAt(n), ids.length)
        assertNear(actual, expected, `${JSON.stringify(config)} after ${n}`)
      }
      assert.deepEqual(synthIdBits(ids, config), bits)
    }
  })

  it('guidanceScale: the same tokens and scores, with and without a negative prompt', async () => {
    for (const { prompt, negative, scale, options, tokens, scores } of reference.guided) {
      const inputIds = tf.tensor2d([prompt], undefined, 'int32')
      const begun = tf.memory().numTensors
      const negativePromptIds = negative ?? undefined
      const o = { ...options, guidanceScale: scale, negativePromptIds, maxNewTokens: 6, outputScores: true }
      const { sequences, stepScores } = await generateAll(internvl.model, { inputIds }, o)
      assert.equal(tf.memory().numTensors, begun)
      inputIds.dispose()
      assert.deepEqual(sequences, [tokens])
      for (const [step, expected] of scores.entries()) assertNear(stepScores![0]![step]!, expected, `scale ${scale}`)
    }
  })

  it('a guided row is the same in a batch, and guidance refuses beams', async () => {
    const inputIds = tf.tensor2d([[5, 9, 60, 7], [7, 60, 9, 5]], undefined, 'int32') // biome-ignore format: one line
    const options = { guidanceScale: 1.5, negativePromptIds: [[5, 30], [7, 7]], maxNewTokens: 4 } // biome-ignore format: one line
    const both = await generateAll(internvl.model, { inputIds }, options)
    for (const row of [0, 1]) {
      const one = inputIds.slice([row, 0], [1, 4])
      const alone = await generateAll(
        internvl.model,
        { inputIds: one },
        { ...options, negativePromptIds: options.negativePromptIds[row] }
      )
      one.dispose()
      assert.deepEqual(alone.sequences[0], both.sequences[row])
    }
    await assert.rejects(
      generateAll(internvl.model, { inputIds }, { ...options, numBeams: 2 }),
      /guidanceScale: cannot be used with numBeams/
    )
    await assert.rejects(
      generateAll(internvl.model, { inputIds }, { negativePromptIds: [4] }),
      /guidanceScale: expected a number other than 1/
    )
    inputIds.dispose()
  })

  it('tokenHealing: the same prompts', async () => {
    const { tokenizer } = internvl.processor
    for (const { text, ids, healed } of reference.healed) {
      assert.deepEqual(tokenizer.encode(text), ids)
      const inputIds = tf.tensor2d([ids], undefined, 'int32')
      const { prompts } = await generateAll(internvl.model, { inputIds }, { tokenHealing: true, tokenizer, maxNewTokens: 1 })
      inputIds.dispose()
      assert.deepEqual(prompts, [healed], text)
    }
  })

  it('cacheImplementation: static has the tokens of dynamic, quantized those of an int8 cache; others are refused by name', async () => {
    const inputIds = tf.tensor2d([[5, 9, 60, 7]], undefined, 'int32')
    const run = async (o: GenerateOptions) =>
      (await generateAll(internvl.model, { inputIds }, { maxNewTokens: 24, ...o })).sequences
    assert.deepEqual(await run({ cacheImplementation: 'static' }), await run({ cacheImplementation: 'dynamic' }))
    assert.deepEqual(await run({ cacheImplementation: 'quantized' }), await run({ kvCache: 'int8' }))
    const offloaded = { cacheImplementation: 'offloaded' } as unknown as GenerateOptions
    await assert.rejects(run(offloaded), /cacheImplementation: expected 'dynamic', 'static', 'quantized', got "offloaded"/)
    await assert.rejects(run({ penaltyAlpha: 0.6 } as GenerateOptions), /penaltyAlpha: 0.6 is not supported: contrastive search/)
    inputIds.dispose()
  })
})
