import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { AutoModelForImageTextToText, AutoProcessor, demoModel, type Messages, tf } from '../../../generation/root.js'
import {
  type BatchFeature,
  InternVLConfig,
  InternVLForConditionalGeneration,
  InternVLModel,
  InternVLProcessor,
  InternVLVideoProcessor,
  InternVLVisionConfig,
  InternVLVisionModel,
  TextStreamer
} from '../../../generation/transformers/index.js'
import { distance } from '../../laws/close.js'

interface Reference {
  readonly prompt: string
  readonly prompts: readonly string[]
  readonly input_ids: readonly number[]
  readonly generated: readonly (readonly number[])[]
  readonly decoded: readonly string[]
  readonly answer: string
  readonly whole: string
  readonly loss: number
  readonly logits: readonly number[]
  readonly hidden_states: readonly (readonly number[])[]
  readonly last_hidden_state: readonly number[]
  readonly vision: readonly number[]
  readonly features: readonly number[]
  readonly parameters: number
}
const expected: Reference = JSON.parse(readFileSync(new URL('../../reference/nouns.json', import.meta.url), 'utf8'))
const shown = (name: string): string => fileURLToPath(new URL(`../../../generation/demo/${name}`, import.meta.url))

const ask = (text: string, ...images: readonly string[]): Messages => [
  { role: 'user', content: [...images.map((name) => ({ type: 'image', path: shown(name) }) as const), { type: 'text', text }] }
]
const batch = [
  ask('Describe the image.', 'shapes.png'),
  ask('Which picture has more shapes?', 'squares.png', 'shapes.png'),
  ask('Who are you?')
]

/** Values of a row of a tensor: the last axis at the given indices of the other axes. */
const rowOf = (t: tf.Tensor, ...at: readonly number[]): readonly number[] => {
  const begin = [...at, 0]
  const row = tf.tidy(() => t.slice(begin, begin.map((_, i) => (i < at.length ? 1 : -1))).dataSync()) // biome-ignore format: one line
  return Array.from(row)
}
const close = (actual: readonly number[], wanted: readonly number[]): void =>
  assert.ok(distance(actual, wanted) < 1e-4, String(distance(actual, wanted)))

describe("Transformers' nouns", () => {
  let processor: InternVLProcessor
  let model: InternVLForConditionalGeneration
  let inputs: BatchFeature
  let atStart: number
  before(async () => {
    processor = await AutoProcessor.fromPretrained(demoModel)
    model = await AutoModelForImageTextToText.fromPretrained(demoModel)
    atStart = tf.memory().numTensors
    inputs = await processor.applyChatTemplate(batch, {
      addGenerationPrompt: true,
      padding: true,
      tokenize: true,
      returnDict: true
    })
  })
  after(() => {
    inputs.dispose()
    assert.equal(tf.memory().numTensors, atStart, 'leaks nothing')
    model.dispose()
  })

  it('prompts, ids and texts are those of the Python classes', async () => {
    assert.ok(processor instanceof InternVLProcessor && model instanceof InternVLForConditionalGeneration)
    assert.equal(processor.applyChatTemplate(batch[0]!), expected.prompt)
    assert.deepEqual(processor.applyChatTemplate(batch, { addGenerationPrompt: true }), expected.prompts)
    assert.deepEqual(await processor.applyChatTemplate(batch[0]!, { tokenize: true }), [expected.input_ids])
    const { inputIds } = inputs
    const ids = await model.generate({ ...inputs, maxNewTokens: 25 })
    assert.deepEqual(ids, expected.generated)
    assert.deepEqual(processor.batchDecode(ids, { skipSpecialTokens: true }), expected.decoded)
    assert.equal(processor.decode(ids[0]!.slice(inputIds.shape[1]), { skipSpecialTokens: true }), expected.answer)
    assert.equal(processor.decode(ids[2]!), expected.whole)
    const table = tf.tensor2d(ids as number[][], undefined, 'int32')
    assert.deepEqual(processor.batchDecode(table), processor.batchDecode(ids))
    table.dispose()
    const again = await processor.process({ text: expected.prompts[0]!, images: shown('shapes.png') })
    assert.equal(processor.decode((await model.generate({ ...again, maxNewTokens: 25 }))[0]!).includes('green circle'), true)
    again.dispose()
  })

  it('forward returns the loss, logits and hidden states of Python, and leaks no other tensor', () => {
    const before = tf.memory().numTensors
    const mask = inputs.attentionMask.arraySync()
    const known = inputs.inputIds.arraySync().map((row, b) => row.map((id, i) => (mask[b]!.at(i - 1) && mask[b]![i] ? id : -100)))
    const labels = tf.tensor2d(known, undefined, 'int32') // predictions at padding positions are undefined
    const out = model.forward({ ...inputs, labels, outputHiddenStates: true, useCache: true })
    assert.ok(Math.abs(out.loss!.dataSync()[0]! - expected.loss) < 1e-4 * expected.loss, `loss ${out.loss!.dataSync()[0]}`)
    close(rowOf(out.logits, 0, out.logits.shape[1] - 1), expected.logits)
    for (const [i, state] of out.hiddenStates!.entries())
      close(rowOf(state, 0, state.shape[1] - 1).slice(0, 8), expected.hidden_states[i]!)
    const features = out.imageOutputs!.poolerOutput
    close(rowOf(features, 1, features.shape[1] - 1), expected.features)
    assert.deepEqual([out.imageHiddenStates, out.pastKeyValues], [features, out.cache], 'the names before Transformers 5.24')
    const { poolerOutput } = model.getImageFeatures({ pixelValues: inputs.pixelValues! })
    const { inputIds, attentionMask } = inputs
    const short = model.forward({ inputIds, attentionMask, imageFeatures: poolerOutput, logitsToKeep: 1 })
    assert.deepEqual(Object.keys(short), ['logits'])
    close(rowOf(short.logits, 0, 0), expected.logits)
    tf.dispose([labels, poolerOutput, short.logits, out.logits, out.loss!, features, ...out.hiddenStates!])
    const one = tf.ones<tf.Rank.R2>([inputs.attentionMask.shape[0], 1], 'int32')
    const next = { inputIds: one, attentionMask: tf.concat([inputs.attentionMask, one], 1) }
    const [{ logits }, old] = [model.forward({ ...next, cache: out.cache }), model.forward({ ...next, pastKeyValues: out.cache })]
    assert.deepEqual(logits.dataSync(), old.logits.dataSync())
    assert.throws(() => model.forward({ ...next, cache: out.cache, pastKeyValues: out.cache }), /both cache and pastKeyValues/)
    tf.dispose([one, next.attentionMask, logits, old.logits])
    tf.dispose(out.cache!.flatMap(({ key, value }) => [key, value]))
    assert.equal(tf.memory().numTensors, before)
    assert.throws(() => model.forward({}), /exactly one of inputIds or inputsEmbeds/)
  })

  it('InternVLModel and InternVLVisionModel give their parts of the result', async () => {
    const whole = await InternVLModel.fromPretrained(demoModel)
    const { lastHiddenState, imageOutputs } = whole.forward(inputs)
    close(rowOf(lastHiddenState, 1, lastHiddenState.shape[1] - 1), expected.last_hidden_state)
    tf.dispose([lastHiddenState, imageOutputs!.poolerOutput])
    whole.dispose()
    const before = tf.memory().numTensors
    const vision = await InternVLVisionModel.fromPretrained(demoModel)
    assert.equal(tf.memory().numTensors, before + vision.namedParameters().length, 'nothing but the tower is kept')
    const out = vision.forward({ pixelValues: inputs.pixelValues! })
    close(rowOf(out.lastHiddenState, 0, 1), expected.vision)
    const more = vision.forward({ pixelValues: inputs.pixelValues!, outputHiddenStates: true, outputAttentions: true })
    const { numHiddenLayers: layers, numAttentionHeads: heads, hiddenSize } = vision.config
    const [T, L] = out.lastHiddenState.shape
    assert.deepEqual([more.hiddenStates!.length, more.attentions!.length], [layers + 1, layers])
    assert.deepEqual(
      [more.attentions![0]!.shape, more.poolerOutput.shape],
      [
        [T, heads, L, L],
        [T, hiddenSize]
      ]
    )
    for (const { hiddenStates = [], attentions = [], lastHiddenState, poolerOutput } of [out, more])
      tf.dispose([lastHiddenState, poolerOutput, ...hiddenStates, ...attentions])
    vision.dispose()
    assert.equal(tf.memory().numTensors, before)
  })

  it('a model from a configuration has new parameters, the same for a seed, and runs', async () => {
    const config = new InternVLConfig({
      visionConfig: {
        hiddenSize: 8,
        intermediateSize: 8,
        numHiddenLayers: 1,
        numAttentionHeads: 2,
        imageSize: [8, 8],
        patchSize: [2, 2]
      },
      textConfig: {
        modelType: 'qwen2',
        vocabSize: 20,
        hiddenSize: 8,
        intermediateSize: 8,
        numHiddenLayers: 1,
        numAttentionHeads: 2,
        numKeyValueHeads: 1
      },
      imageTokenId: 1,
      imageSeqLength: 4
    })
    assert.equal(config.textConfig.numKeyValueHeads, 1)
    const [a, b] = [new InternVLForConditionalGeneration(config, 3), new InternVLForConditionalGeneration(config, 3)]
    assert.deepEqual(Object.keys(a.stateDict()), Object.keys(b.stateDict()))
    const inputIds = tf.tensor2d([[2, 1, 1, 1, 1, 3]], undefined, 'int32')
    const pixelValues = tf.ones<tf.Rank.R4>([1, 3, 8, 8])
    assert.deepEqual(
      await a.generate({ inputIds, pixelValues, maxNewTokens: 3 }),
      await b.generate({ inputIds, pixelValues, maxNewTokens: 3 })
    )
    tf.dispose([inputIds, pixelValues])
    a.dispose()
    b.dispose()
    assert.throws(
      () => new InternVLConfig({ visionConfig: { hiddenSize: 'wide' }, textConfig: { modelType: 'x' } }),
      /hidden_size[\s\S]*model_type/
    )
  })

  it('configurations read from a folder are instances, and equal those of the model', async () => {
    const config = await InternVLConfig.fromPretrained(demoModel)
    assert.ok(config instanceof InternVLConfig)
    assert.equal(config.textConfig.vocabSize, model.config.textConfig.vocabSize)
    assert.ok((await InternVLVisionConfig.fromPretrained(demoModel)) instanceof InternVLVisionConfig)
    assert.equal(new InternVLVisionConfig().hiddenSize, 1024)
    assert.equal(new InternVLConfig().imageTokenId, 151667)
    assert.equal(model.numParameters(), expected.parameters)
  })

  it('TextStreamer emits text as it is generated, the prompt first unless skipped', async () => {
    const one = await processor.applyChatTemplate(batch[0]!, { addGenerationPrompt: true, tokenize: true, returnDict: true })
    const streamed = async (skipPrompt: boolean): Promise<string> => {
      const pieces: string[] = []
      const ends: boolean[] = []
      class Collected extends TextStreamer {
        override onFinalizedText(text: string, streamEnd: boolean): void {
          pieces.push(text)
          ends.push(streamEnd)
        }
      }
      const streamer = new Collected(processor, { skipPrompt, skipSpecialTokens: true })
      await model.generate({ ...one, maxNewTokens: 25, streamer })
      assert.equal(ends.indexOf(true), ends.length - 1)
      return pieces.join('')
    }
    assert.equal(await streamed(true), expected.answer)
    assert.equal(await streamed(false), expected.decoded[0])
    one.dispose()
    await assert.rejects(model.generate({ ...inputs, streamer: new TextStreamer(processor) }), /one row/)
    await assert.rejects(model.generate({ ...inputs, temperature: -1 }), /temperature/)
  })

  it('InternVLVideoProcessor samples and normalizes frames like a video in a message', async () => {
    const videos = await InternVLVideoProcessor.fromPretrained(demoModel)
    assert.deepEqual(videos.sampleFrames({ totalNumFrames: 10 }, { numFrames: 2 }), [2, 7])
    assert.throws(() => videos.sampleFrames({ totalNumFrames: 3 }, { numFrames: 4 }), /exceeds/)
    const feature = await videos.process([shown('video'), [shown('shapes.png')]])
    assert.deepEqual(feature.pixelValuesVideos.map(({ shape }) => shape[0]), [3, 1]) // biome-ignore format: one line
    const video: Messages = [{ role: 'user', content: [{ type: 'video', path: shown('video') }] }]
    const prepared = await processor.applyChatTemplate(video, { tokenize: true, returnDict: true })
    assert.deepEqual(feature.pixelValuesVideos[0]!.dataSync(), prepared.pixelValues!.dataSync())
    feature.dispose()
    prepared.dispose()
  })
})
