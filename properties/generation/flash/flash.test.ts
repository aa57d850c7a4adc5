import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answer } from '../../../generation/answer.js'
import { chat } from '../../../generation/chat/chat.js'
import { demoModel, type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { convert, save } from '../../../generation/checkpoint/save.js'
import { disposeCache, type GenerateOptions, generateAll } from '../../../generation/decoding/generate.js'
import { explain } from '../../../generation/explain/explain.js'
import { explainMethods } from '../../../generation/explain/methods.js'
import { trainedShapes } from '../../../generation/train/trainable.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { declarations, initParams, mapParams, namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import type { InternVLParams } from '../../../models/checkpoint/load-model.js'
import type { InternVLConfig } from '../../../models/config/model-config.js'
import { internVL } from '../../../models/internvl/internvl.js'
import type { Messages } from '../../../processors/text/messages.js'
import { readJson, stored } from '../../models/folders.js'
import { localEngine } from '../engine/local-engine.js'

const shown = (name: string): string => fileURLToPath(new URL(`../../../generation/demo/${name}`, import.meta.url))
const ask = (text: string, ...images: readonly string[]): Messages => [
  { role: 'user', content: [...images.map((path) => ({ type: 'image' as const, path: shown(path) })), { type: 'text', text }] }
]

/** The demo model with a random router, saved as a folder. */
const writeFlashModel = async (dir: string): Promise<void> => {
  const demo = await load(demoModel)
  const config: InternVLConfig = { ...demo.config, flash: { mode: true, relativeThreshold: 0.4, absoluteThreshold: 0 } }
  const fresh = initParams(internVL(config), 3)
  const wide = mapParams((leaf, path) => (path.includes('norm') ? leaf : leaf.mul(5)))(fresh) // scores that differ
  const params = { ...wide, model: { ...wide.model, ...demo.params.model } } as InternVLParams
  await save(dir, { config, params, processorFilesFrom: demo.dir })
  demo.dispose()
}

describe('InternVL3.5-Flash', () => {
  let folder: string
  let flash: InternVLCheckpoint
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'flash-'))
    await writeFlashModel(join(folder, 'hf'))
    flash = await load(join(folder, 'hf'))
  })
  after(async () => {
    flash.dispose()
    await rm(folder, { recursive: true, force: true })
  })

  const few: GenerateOptions = { maxNewTokens: 8, eosTokenIds: [] }
  const tokensOf = async (batch: readonly Messages[], options: GenerateOptions = few) => {
    const inputs = await orThrow(flash.processor.prepare(batch, { maxPatches: 4 }))
    try {
      const { sequences, routing } = await generateAll(flash.model, inputs, { ...flash.generation, ...options })
      return { sequences, routing, promptLength: inputs.inputIds.shape[1] }
    } finally {
      inputs.dispose()
    }
  }

  it('some tiles have a quarter of their tokens, and thresholds that no tile meets give the answer without the router', async () => {
    const question = [ask('Describe the image.', 'shapes.png', 'circle.png')]
    const { routing, promptLength, sequences } = await tokensOf(question)
    const [{ compressed, promptTokens, scores }] = routing as [NonNullable<typeof routing>[number]]
    const count = compressed.filter(Boolean).length
    assert.ok(count > 0 && count < compressed.length, `${compressed}`)
    assert.ok(scores.every((p) => p > 0 && p < 1))
    assert.equal(promptTokens, promptLength - count * 12) // 16 tokens a tile, 4 remain
    const without = await tokensOf(question, { ...few, flash: false })
    assert.equal(without.routing, undefined)
    for (const thresholds of [{ flashRelativeThreshold: 1 }, { flashAbsoluteThreshold: 1 }]) {
      const none = await tokensOf(question, { ...few, ...thresholds })
      assert.ok(!none.routing![0]!.compressed.includes(true))
      assert.deepEqual(none.sequences, without.sequences)
    }
    assert.notDeepEqual(sequences, without.sequences)
  })

  it('a row has the compressed tiles and tokens that it has alone, in any batch, and no tensor stays', async () => {
    const rows = [ask('How many?', 'shapes.png'), ask('Hello.'), ask('What is left?', 'circle.png', 'shapes.png')]
    const before = tf.memory().numTensors
    const together = await tokensOf(rows)
    for (const [i, row] of rows.entries()) {
      const alone = await tokensOf([row])
      assert.deepEqual(together.sequences[i], alone.sequences[0])
      if (alone.routing) assert.deepEqual(together.routing![i]!.compressed, alone.routing[0]!.compressed)
    }
    const options = [
      { numBeams: 2 },
      { numReturnSequences: 2, doSample: true, seed: 1 },
      { promptLookupNumTokens: 3 },
      { visualDelta: 0.25 }
    ]
    for (const option of options) assert.ok((await tokensOf([rows[2]!], { ...few, ...option })).routing)
    assert.equal(tf.memory().numTensors, before)
  })

  it('an abort stops between tiles, and the assistant model is refused', async () => {
    const controller = new AbortController()
    controller.abort()
    const before = tf.memory().numTensors
    const inputs = await orThrow(flash.processor.prepare([ask('Describe.', 'shapes.png')], { maxPatches: 4 }))
    const result = await generateAll(flash.model, inputs, { ...flash.generation, signal: controller.signal })
    assert.deepEqual([result.sequences, result.finishReasons], [[[]], ['aborted']])
    await assert.rejects(generateAll(flash.model, inputs, { ...flash.generation, assistantModel: flash }), /set flash: false/)
    await assert.rejects(async () => generateAll(flash.model, inputs, { ...flash.generation, flashRelativeThreshold: 2 }), /flashRelativeThreshold/) // biome-ignore format: one line
    inputs.dispose()
    assert.equal(tf.memory().numTensors, before)
  })

  it('a chat answers like a model that reads the whole conversation, though new images change earlier tiles', async () => {
    const session = chat(flash, { ...few, maxPatches: 4 })
    const turns = [['shapes.png'], [], ['circle.png', 'shapes.png'], [], ['circle.png']] as const
    const compressed = new Set<string>()
    for (const images of turns) {
      const history = session.history
      const turn = await session.ask('What is here?', { images: images.map(shown) })
      const whole = await answer(flash, [[...history, session.history.at(-2)!]], { ...few, maxPatches: 4 })
      assert.equal(turn.text, whole.texts[0])
      assert.equal(turn.promptTokens, whole.timings.promptTokens)
      compressed.add(`${whole.result.routing![0]!.compressed.slice(0, 2)}`)
      if (images.length === 0) assert.ok(turn.reusedTokens > 20)
    }
    assert.ok(compressed.size > 1, 'no tile changed')
    const { encoded, entries } = flash.features.counts()
    assert.equal(encoded, entries) // each tile once
    session.dispose()
  })

  it('a KV cache is reused up to the first tile that changed', async () => {
    const inputs = await orThrow(flash.processor.prepare([ask('Describe.', 'shapes.png', 'circle.png')], { maxPatches: 4 }))
    const options = { ...flash.generation, ...few }
    const first = await generateAll(flash.model, inputs, { ...options, returnCache: true })
    for (const flashRelativeThreshold of [0.4, 0.2, 0.8]) {
      const changed = { ...options, flashRelativeThreshold }
      const [fresh, reused] = [
        await generateAll(flash.model, inputs, changed),
        await generateAll(flash.model, inputs, { ...changed, cache: first.cache })
      ]
      assert.deepEqual(reused.sequences, fresh.sequences)
    }
    for (const { kv } of first.cache!) disposeCache(kv)
    inputs.dispose()
  })

  it('all layouts, types and int8 keep the router; config.json keeps its fields', async () => {
    const [original, first, back] = ['original', 'hf-first', 'back'].map((name) => join(folder, name)) as [string, string, string]
    await convert(join(folder, 'hf'), original, { layout: 'original' })
    await convert(original, first, { layout: 'hf-first' })
    await convert(first, back, { layout: 'hf' })
    assert.deepEqual(await stored(back), await stored(join(folder, 'hf')))
    for (const dir of [original, first, back]) {
      const { flash_mode, flash_relative_threshold } = await readJson(dir)
      assert.deepEqual([flash_mode, flash_relative_threshold], [true, 0.4])
    }
    const keys = (await stored(original)).map(({ key }) => key)
    for (const key of ['pooling_before_gating.attn1.in_proj_weight', 'gating.block1.0.weight', 'mlp2.7.bias'])
      assert.ok(keys.includes(key))
    const expected = await tokensOf([ask('How many?', 'shapes.png')])
    const again = await load(original)
    const int8 = await load(original, { quantize: 'int8' })
    for (const one of [again, int8]) {
      const { result } = await answer(one, [ask('How many?', 'shapes.png')], { ...few, maxPatches: 4 })
      assert.deepEqual(result.routing![0]!.compressed, expected.routing![0]!.compressed)
      if (one === again) assert.deepEqual(result.sequences, expected.sequences)
      one.dispose()
    }
  })

  it('requests of an engine are answered as by `answer`, and the next turn reuses the tokens whose tiles did not change', async () => {
    const before = tf.memory().numTensors
    const { run, context } = localEngine(flash, { prefixCacheBytes: 2 ** 28 })
    const options = { ...few, maxPatches: 4 }
    const first = ask('Describe the image.', 'shapes.png', 'circle.png')
    const results = await Promise.all([first, ask('How many?', 'squares.png')].map((messages) => run({ messages, options })))
    const { result, texts } = await answer(flash, [first], options)
    assert.deepEqual(results[0]!.choices[0]!.tokens, result.sequences[0])
    const { prompt } = results[0]!.usage
    assert.equal(prompt.total, result.routing![0]!.promptTokens)
    assert.equal(prompt.text + prompt.image, prompt.total)
    const next: Messages = [...first, { role: 'assistant', content: texts[0]! }, { role: 'user', content: 'How many?' }]
    const second = await run({ messages: next, options })
    assert.ok(second.usage.prompt.reused >= prompt.total, `${second.usage.prompt.reused} of ${prompt.total}`)
    assert.equal(second.usage.encodedTiles, 0)
    assert.deepEqual(second.choices[0]!.tokens, (await answer(flash, [next], options)).result.sequences[0])
    context.prefixes.clear()
    assert.equal(tf.memory().numTensors, before)
  })

  it('explain leaves the router off: the answer is that without the router, and each method gives a map', async () => {
    const question = ask('Describe the image.', 'shapes.png')
    const { texts } = await answer(flash, [question], { maxNewTokens: 8, flash: false, doSample: false })
    for (const method of explainMethods) {
      const explanation = await explain(flash, question, { method, token: 2, cells: 2, steps: 2, maxNewTokens: 8 })
      assert.equal(explanation.answer, texts[0])
      const total = explanation.parts[0]!.map.sum().dataSync()[0]!
      assert.ok(Math.abs(total - 1) < 1e-3, `${method}: ${total}`)
      explanation.dispose()
    }
  })

  it('training leaves the router out', () => {
    const shapes = new Map(declarations(flash.module).map(([path, { shape }]) => [path, shape]))
    const settings = { 'train.only': null, 'train.freeze': [], 'lora.rank': null, seed: 0 } as never
    const paths = [...getOrThrow(trainedShapes(shapes, settings)).keys()]
    assert.ok(paths.length > 50 && paths.every((path) => !/gating|mlp2/.test(path)))
    assert.ok(namedParameters(flash.params).some(([path]) => path.startsWith('model.gating.')))
  })

  it('a model without a router refuses flash: true', async () => {
    const demo = await load(demoModel)
    await assert.rejects(
      async () => answer(demo, [ask('Hi', 'circle.png')], { flash: true }),
      /flash: expected a model with a router/
    )
    demo.dispose()
  })
})
