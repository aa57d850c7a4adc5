import assert from 'node:assert/strict'
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { inspect } from '../../../generation/checkpoint/inspect.js'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { convert, save } from '../../../generation/checkpoint/save.js'
import { embed, loadVisionEncoder } from '../../../generation/embed.js'
import { InternVLError } from '../../../lib/error.js'
import { namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import type { Layout } from '../../../models/checkpoint/layout.js'
import { poolVision } from '../../../models/internvl/vision.js'
import { inFolder, readJson, stored } from '../../models/folders.js'

const messages = [{ role: 'user', content: [{ type: 'text', text: 'What is here?' }] }] as const

const issuesOf = (promise: Promise<unknown>): Promise<readonly string[]> =>
  promise.then(
    () => assert.fail('it should have failed'),
    (error) => {
      assert.ok(error instanceof InternVLError, String(error))
      return error.issues.map(({ _tag, message }) => `${_tag}: ${message}`)
    }
  )

/** A copy of the demo model, changed. */
const changed = async (folder: string, edits: Readonly<Record<string, (json: Record<string, unknown>) => unknown>>) => {
  await cp(demoModel, folder, { recursive: true })
  for (const [name, edit] of Object.entries(edits))
    await writeFile(join(folder, name), JSON.stringify(edit((await readJson(folder, name)) as Record<string, unknown>)))
}

describe('saving and converting whole folders', () => {
  it('a saved folder loads with the same prompts, processor settings, end tokens and weights', () =>
    inFolder(async (folder) => {
      const demo = await load()
      await save(folder, { config: demo.config, params: demo.params, dtype: 'bfloat16', processorFilesFrom: demo.dir })
      const again = await load(folder)
      assert.deepEqual(again.processor.render(messages), demo.processor.render(messages))
      assert.deepEqual(again.processor.config, demo.processor.config)
      assert.deepEqual(again.generation, demo.generation)
      const [a, b] = [await stored(folder), await stored(demo.dir)]
      assert.deepEqual(new Set(a.map(({ bytes }) => bytes)), new Set(b.map(({ bytes }) => bytes)))
      demo.dispose()
      again.dispose()
    }))

  it('a model whose projector was replaced is refused with its keys, and nothing is written', () =>
    inFolder(async (folder) => {
      const demo = await load()
      const key = 'model.multi_modal_projector.linear_1.bias'
      const tensors = Object.fromEntries(namedParameters(demo.params))
      const bias = tf.zeros([tensors[key]!.shape[0]! + 8])
      const options = { config: demo.config, processorFilesFrom: demo.dir }
      const wider = await issuesOf(save(join(folder, 'a'), { ...options, tensors: { ...tensors, [key]: bias } }))
      assert.equal(wider.length, 1)
      assert.match(wider[0]!, /ShapeMismatch: .*not saved.*linear_1\.bias: expected shape/)
      const { [key]: _, ...fewer } = tensors
      const other = await issuesOf(save(join(folder, 'a'), { ...options, tensors: { ...fewer, 'model.extra.weight': bias } }))
      assert.deepEqual(other.map((message) => message.split(':')[0]).sort(), ['MissingKey', 'UnexpectedKey'])
      assert.deepEqual(await readdir(folder), [])
      bias.dispose()
      demo.dispose()
      for (const quantize of ['int8', 'int4'] as const) {
        const packed = await load(undefined, { quantize, dtype: 'bfloat16' })
        await save(join(folder, quantize), { config: packed.config, params: packed.params, processorFilesFrom: packed.dir })
        packed.dispose()
        ;(await load(join(folder, quantize))).dispose()
      }
    }))

  it('a folder in OpenGVLab’s layout without processor files becomes one with them, of the same meaning', () =>
    inFolder(async (folder) => {
      const [original, hf] = [join(folder, 'a'), join(folder, 'b')]
      await convert(demoModel, original, { layout: 'original' })
      for (const name of ['processor_config.json', 'chat_template.jinja', 'generation_config.json'])
        await rm(join(original, name), { force: true })
      await convert(original, hf, { layout: 'hf' })
      const [a, b, demo] = [await load(original), await load(hf), await load()]
      assert.deepEqual(b.processor.config, a.processor.config)
      assert.deepEqual(b.processor.config.image.size, demo.processor.config.image.size)
      assert.deepEqual(b.processor.render(messages), a.processor.render(messages))
      assert.deepEqual(b.generation.eosTokenIds, a.generation.eosTokenIds)
      assert.equal(b.config.imageTokenId, demo.config.imageTokenId)
      for (const checkpoint of [a, b, demo]) checkpoint.dispose()
    }))

  it('refuses to write into the source, or into a folder that is not empty unless forced', () =>
    inFolder(async (folder) => {
      const layout: Layout = 'hf'
      const source = join(folder, 'source')
      await cp(demoModel, source, { recursive: true })
      assert.match(
        (await issuesOf(convert(source, join(folder, '.', 'source'), { layout, force: true })))[0]!,
        /TargetRefused.*is the source folder/
      )
      const target = join(folder, 'target')
      await mkdir(target)
      await writeFile(join(target, 'mine.txt'), 'keep')
      assert.match((await issuesOf(convert(source, target, { layout })))[0]!, /TargetRefused.*not empty/)
      assert.deepEqual(await readdir(target), ['mine.txt'])
      await convert(source, target, { layout, force: true })
      assert.equal(await readFile(join(target, 'mine.txt'), 'utf8'), 'keep')
    }))
})

describe('inspecting whole folders', () => {
  it('the demo model has no diagnostics', async () => {
    const { loads, diagnostics, issues, model } = await inspect(demoModel)
    assert.deepEqual([loads, diagnostics, issues], [true, [], []])
    assert.equal(model?.tree.parameters, 2_672_416)
  })

  it('an unusual folder has diagnostics that name the behaviour of the library, and still loads', () =>
    inFolder(async (folder) => {
      await changed(folder, {
        'config.json': (json) => ({
          ...json,
          image_token_id: 3,
          dtype: 'float16',
          text_config: { ...(json.text_config as object), eos_token_id: 5, pad_token_id: 6 }
        }),
        'processor_config.json': (json) => ({
          ...json,
          video_processor: {
            ...(json.video_processor as object),
            size: { height: 384, width: 384 },
            image_mean: [0.48, 0.45, 0.4]
          }
        })
      })
      await rm(join(folder, 'chat_template.jinja'))
      const { loads, diagnostics } = await inspect(folder)
      const tags = diagnostics.map(({ _tag }) => _tag)
      assert.ok(loads)
      for (const tag of [
        'DtypeDiffers',
        'ImageTokenDiffers',
        'VideoSizeDiffers',
        'EndTokensDiffer',
        'PadTokensDiffer',
        'NoChatTemplate'
      ])
        assert.ok(tags.includes(tag), `${tag} of ${tags}`)
      const [demo, odd] = [await load(), await load(folder)]
      assert.equal(odd.config.imageTokenId, demo.config.imageTokenId, 'the tokenizer’s id is used')
      assert.deepEqual(odd.processor.config.video.size, demo.processor.config.image.size)
      assert.deepEqual(odd.processor.render(messages), demo.processor.render(messages), 'the published template')
      assert.deepEqual(odd.generation.eosTokenIds, demo.generation.eosTokenIds)
      demo.dispose()
      odd.dispose()
    }))

  it('sizes, end tokens and a vocabulary that do not match have diagnostics', () =>
    inFolder(async (folder) => {
      await changed(folder, {
        'generation_config.json': (json) => ({ ...json, eos_token_id: 5 }),
        'processor_config.json': (json) => {
          const image = { ...(json.image_processor as object), size: { height: 56, width: 56 } }
          return {
            ...json,
            image_seq_length: 9,
            image_processor: image,
            video_processor: { ...image, image_mean: [0.1, 0.2, 0.3] }
          }
        },
        'tokenizer.json': (json) => {
          const added = json.added_tokens as readonly { readonly id: number }[]
          return { ...json, added_tokens: [...added, { ...added[0], id: 9000, content: '<far>' }] }
        }
      })
      const diagnosticLines = (await inspect(folder)).diagnostics.map(({ _tag, message }) => `${_tag}: ${message}`).join('\n')
      for (const pattern of [
        /ImageSizeDiffers: images are 56x56, .*112x112: they are interpolated/,
        /ImageSeqLengthDiffers: a tile has 4 image tokens, the processor expects 9/,
        /VideoMeanDiffers: .*\[0\.1,0\.2,0\.3\].*videos use their own/,
        /TurnEndDiffers: .*<\|im_end\|>.*not an end token \(5\)/,
        /VocabularyLarger: the tokenizer has 9001 tokens/
      ])
        assert.match(diagnosticLines, pattern)
    }))

  /** A change of a folder, and the errors that every reader must report. */
  const broken: Readonly<Record<string, readonly [spoil: (folder: string) => Promise<unknown>, issues: readonly RegExp[]]>> = {
    'an unknown decoder and a tokenizer that is not JSON': [
      async (folder) => {
        await changed(folder, { 'config.json': (json) => ({ ...json, text_config: { model_type: 'mamba' } }) })
        await writeFile(join(folder, 'tokenizer.json'), '{')
      },
      [/config\.json: text_config\.model_type should be one of qwen2.*"mamba"/, /tokenizer\.json: it is not JSON/]
    ],
    'a field of the wrong type and a file cut short': [
      async (folder) => {
        await changed(folder, { 'config.json': (json) => ({ ...json, downsample_ratio: 'half' }) })
        const file = join(folder, 'model.safetensors')
        await writeFile(file, (await readFile(file)).subarray(0, -10))
      },
      [/config\.json: downsample_ratio should be a positive number; it is "half"/, /model\.safetensors: the file is cut short/]
    ],
    'an index out of the folder, and no config.json': [
      async (folder) => {
        await changed(folder, {})
        await rm(join(folder, 'model.safetensors'))
        await rm(join(folder, 'config.json'))
        await writeFile(join(folder, 'model.safetensors.index.json'), '{"weight_map": {"a": "../x.safetensors"}}')
      },
      [/config\.json: no such file/, /weight_map\.a names "\.\.\/x\.safetensors"/]
    ],
    'a shard that is missing': [
      async (folder) => {
        await convert(demoModel, folder, { layout: 'hf', shardBytes: 2_000_000 })
        await rm(join(folder, 'model-00002-of-00003.safetensors'))
      },
      [/model-00002-of-00003\.safetensors: no such file/]
    ],
    'a tower with more layers than are stored': [
      async (folder) =>
        changed(folder, {
          'config.json': (json) => ({ ...json, vision_config: { ...(json.vision_config as object), num_hidden_layers: 9 } })
        }),
      [/layer\.8\.lambda_1: missing \(expected shape/]
    ]
  }
  for (const [what, [spoil, expected]] of Object.entries(broken))
    it(`${what}: load, inspect and convert report all errors`, () =>
      inFolder(async (parent) => {
        const folder = join(parent, 'broken')
        await spoil(folder)
        const { loads, issues } = await inspect(folder)
        const reports = [
          issues.map(({ message }) => message),
          await issuesOf(load(folder)),
          await issuesOf(convert(folder, join(parent, 'to'), { layout: 'hf' }))
        ]
        assert.equal(loads, false)
        for (const messages of reports)
          for (const pattern of expected)
            assert.ok(
              messages.some((message) => pattern.test(message)),
              `${pattern}: ${messages}`
            )
        assert.deepEqual(await readdir(parent), ['broken'], 'nothing is written')
      }))
})

describe('embedding images', () => {
  const image = (seed: number, width = 60, height = 40) => ({
    data: Uint8Array.from({ length: 3 * width * height }, (_, i) => (i * seed) % 256),
    width,
    height,
    channels: 3 as const
  })

  it('each image has its own vector, independent of the other images; so has each tile', async () => {
    const vision = await loadVisionEncoder()
    const D = vision.config.visionConfig.hiddenSize
    const images = [image(3), image(7, 40, 90), image(11)]
    const rows = async (...args: Parameters<typeof embed>) => {
      const { values, tiles } = await embed(...args)
      const found = { shape: values.shape, values: (await values.data()) as Float32Array, tiles }
      values.dispose()
      return found
    }
    const all = await rows(vision, images)
    assert.deepEqual(
      [all.shape, all.tiles],
      [
        [3, D],
        [1, 1, 1]
      ]
    )
    for (const [i, one] of images.entries()) {
      const alone = await rows(vision, [one])
      for (let d = 0; d < D; d++) assert.ok(Math.abs(alone.values[d]! - all.values[i * D + d]!) < 1e-4, `${i}, ${d}`)
    }
    const tiled = await rows(vision, [images[1]!], { maxPatches: 4 })
    assert.ok(tiled.tiles[0]! > 1 && tiled.shape[0] === tiled.tiles[0])
    const tokens = await rows(vision, images, { projected: true })
    assert.deepEqual(tokens.shape, [3, vision.config.imageSeqLength, vision.config.textConfig.hiddenSize])
    vision.dispose()
  })

  it('hidden states and attention weights of a layer on request; invalid options are refused by name', async () => {
    const before = tf.memory().numTensors
    const vision = await loadVisionEncoder()
    const { numHiddenLayers: layers, numAttentionHeads: heads, hiddenSize, imageSize, patchSize } = vision.config.visionConfig
    const L = 1 + (imageSize[0] / patchSize[0]) * (imageSize[1] / patchSize[1])
    const shapeOf = async (options: Parameters<typeof embed>[2]) => {
      const { values } = await embed(vision, [image(3), image(5)], options)
      values.dispose()
      return values.shape
    }
    for (const hiddenStates of [0, layers]) assert.deepEqual(await shapeOf({ hiddenStates }), [2, L, hiddenSize])
    for (const attentions of [0, layers - 1]) assert.deepEqual(await shapeOf({ attentions }), [2, heads, L, L])
    await assert.rejects(shapeOf({ hiddenStates: layers + 1 }), { name: 'RangeError', message: /^hiddenStates: .*from 0 to / })
    await assert.rejects(shapeOf({ attentions: -1 }), { name: 'RangeError', message: /^attentions: / })
    await assert.rejects(shapeOf({ attentions: 0, projected: true }), /projected and attentions exclude each other/)
    await assert.rejects(embed(vision, []), /images: .*give at least one/)
    vision.dispose()
    assert.equal(tf.memory().numTensors, before)
  })

  it('pooled is the mean of the patches or the class token; attention weights sum to one for every query', async () => {
    const vision = await loadVisionEncoder()
    const { visionConfig } = vision.config
    tf.tidy(() => {
      const tiles = tf.randomNormal<tf.Rank.R4>([2, 3, ...visionConfig.imageSize], 0, 1, 'float32', 5)
      const { lastHiddenState, attentions } = vision.encoder(tiles, { outputAttentions: true })
      const [T, L] = lastHiddenState.shape
      assert.equal(attentions?.length, visionConfig.numHiddenLayers)
      for (const weights of attentions!) {
        assert.deepEqual(weights.shape, [T, visionConfig.numAttentionHeads, L, L])
        assert.ok(weights.sum(3).sub(1).abs().max().dataSync()[0]! < 1e-5)
      }
      const [cls, ...patches] = tf.unstack(lastHiddenState, 1)
      const expected = { true: tf.addN(patches).div(patches.length), false: cls! }
      for (const useMeanPooling of [true, false]) {
        const pooled = poolVision({ ...visionConfig, useMeanPooling }, lastHiddenState)
        assert.ok(pooled.sub(expected[`${useMeanPooling}`]).abs().max().dataSync()[0]! < 1e-5)
      }
    })
    vision.dispose()
  })
})
