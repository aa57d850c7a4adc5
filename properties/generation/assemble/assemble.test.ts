import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type AssembleOptions, assemble } from '../../../generation/assemble/assemble.js'
import { demoModel, type InternVLCheckpoint, load } from '../../../generation/checkpoint/load.js'
import { convert } from '../../../generation/checkpoint/save.js'
import { getOrThrow } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'
import { inFolder, readJson, stored, writeFolder } from '../../models/folders.js'

interface Expected {
  readonly tower: string
  readonly side: number
  readonly ids: readonly number[]
  readonly logits: readonly number[]
}

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const part = (name: string): string => join(at('./parts'), name)
const parsed = (name: string) => JSON.parse(readFileSync(part(name), 'utf8'))
/** Logits of the last position by Transformers, for models of these parts; written by make_parts.py. */
const expected: Readonly<Record<string, Expected>> = parsed('expected.json')
/** Prompts and ids of Transformers, of the assembled folders; written by open_assembled.py. */
const prompts: Readonly<Record<string, { readonly prompt: string; readonly ids: readonly number[] }>> = parsed('prompts.json')

const IMAGE_MESSAGES = [{ role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'How many shapes?' }] }] as const
const TEXT_MESSAGES = [{ role: 'user', content: 'How many shapes?' }] as const

const wave = (side: number): tf.Tensor4D =>
  tf.tensor4d(
    Float32Array.from({ length: 3 * side ** 2 }, (_, i) => Math.sin(i * 0.37)),
    [1, 3, side, side]
  )

/** Logits of the last position, without an image by default. */
const lastLogits = ({ model }: InternVLCheckpoint, ids: readonly number[], side?: number): Float32Array =>
  tf.tidy(() => {
    const inputIds = tf.tensor2d([[...ids]], undefined, 'int32')
    const inputs = side === undefined ? { inputIds } : { inputIds, pixelValues: wave(side) }
    return model(inputs, { logitsToKeep: 1 }).logits.dataSync() as Float32Array
  })

const assertClose = (actual: ArrayLike<number>, wanted: ArrayLike<number>): void => {
  assert.equal(actual.length, wanted.length)
  const largest = (values: readonly number[]): number => Math.max(...values.map(Math.abs))
  const [a, b] = [Array.from(actual), Array.from(wanted)]
  const difference = largest(a.map((x, i) => x - b[i]!))
  assert.ok(difference < 1e-4 * largest(b), `${difference} of ${largest(b)}`)
}

/** Assembles into a temporary folder, loads the result and uses it. */
const withAssembled = (options: Omit<AssembleOptions, 'out'>, use: (internvl: InternVLCheckpoint) => unknown): Promise<void> =>
  inFolder(async (folder) => {
    const out = join(folder, 'out')
    await assemble({ ...options, out })
    const internvl = await load(out)
    try {
      await use(internvl)
    } finally {
      internvl.dispose()
    }
  })

/** A part of a folder in OpenGVLab's layout as a folder of its own. */
const extract = async (from: string, to: string, prefix: string, configKey: string): Promise<void> => {
  const tensors = (await stored(from)).filter(({ key }) => key.startsWith(prefix))
  const sources = tensors.map(({ key, dtype, shape, bytes }) => ({
    ...{ key: key.slice(prefix.length), dtype, shape },
    bytes: async () => Buffer.from(bytes, 'base64')
  }))
  await writeFolder(to, (await readJson(from))[configKey] as Record<string, unknown>, sources)
}

const gguf = (path: string): string => at(`../gguf/files/${path}`)

describe('assemble', () => {
  for (const [decoder, { tower, side, ids, logits }] of Object.entries(expected))
    it(`${tower} and ${decoder}: logits, prompts and ids are those of Transformers`, () =>
      withAssembled(
        { vision: part(tower), decoder: part(decoder), projector: part('internvl'), dtype: 'float32' },
        (internvl) => {
          assertClose(lastLogits(internvl, ids, side), logits)
          const prompt = getOrThrow(internvl.processor.render(IMAGE_MESSAGES))
          assert.equal(prompt, prompts[decoder]!.prompt)
          assert.deepEqual(internvl.processor.tokenizer.encode(prompt), prompts[decoder]!.ids)
        }
      ))

  it('the decoder alone answers as before: the chat template is kept, and rows of other tokens are unchanged', () =>
    withAssembled({ vision: part('dinov2'), decoder: part('llama') }, ({ dir, processor, config, params, generation }) => {
      const source = readFileSync(part('llama/chat_template.jinja'), 'utf8')
      assert.ok(readFileSync(join(dir, 'chat_template.jinja'), 'utf8').endsWith(source))
      const text = getOrThrow(processor.render(TEXT_MESSAGES))
      const image = getOrThrow(processor.render(IMAGE_MESSAGES))
      assert.equal(image.replace('<IMG_CONTEXT>\n', ''), text)
      assert.equal(config.dtype, 'bfloat16') // the decoder's
      const { weight } = params.model.language_model.embed_tokens
      assert.equal((weight as tf.Tensor).shape[0], config.textConfig.vocabSize)
      assert.deepEqual(generation.eosTokenIds, [processor.tokenizer.idOf('<|eot_id|>')])
    }))

  it('added tokens have the mean embedding of the tokens before them', () =>
    withAssembled({ vision: part('dinov2'), decoder: part('qwen2') }, ({ params, processor }) => {
      const table = params.model.language_model.embed_tokens.weight as tf.Tensor2D
      const first = processor.tokenizer.idOf('<img>')!
      const [mean, row] = tf.tidy(() => [
        table.slice([0, 0], [first, -1]).mean(0).dataSync(),
        table.slice([processor.tokenizer.idOf('<IMG_CONTEXT>')!, 0], [1, -1]).dataSync()
      ])
      assertClose(row, mean)
    }))

  it('a model that was taken apart and put together again is the same model', () =>
    inFolder(async (folder) => {
      const [original, vision, decoder] = ['original', 'vision', 'decoder'].map((name) => join(folder, name)) as [
        string,
        string,
        string
      ]
      await convert(demoModel, original, { layout: 'original' })
      await extract(original, vision, 'vision_model.', 'vision_config')
      await extract(original, decoder, 'language_model.', 'llm_config')
      for (const name of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json'])
        await cp(join(demoModel, name), join(decoder, name))
      const demo = await load()
      const side = demo.config.visionConfig.imageSize[0]
      const ids = demo.processor.tokenizer.encode('How many?<IMG_CONTEXT>'.repeat(demo.config.imageSeqLength))
      const logits = lastLogits(demo, ids, side)
      for (const tower of [demoModel, original, vision])
        await withAssembled({ vision: tower, decoder, projector: demoModel, dtype: 'float32' }, (internvl) => {
          assertClose(lastLogits(internvl, ids, side).subarray(0, logits.length), logits)
          assert.deepEqual(internvl.processor.config.image.mean, demo.processor.config.image.mean)
        })
      demo.dispose()
    }))

  it('a decoder in GGUF has the logits of the file', () =>
    withAssembled({ vision: part('dinov2'), decoder: gguf('qwen2/model.gguf') }, async (internvl) => {
      const whole = await load(gguf('qwen2/model.gguf'), { mmproj: gguf('qwen2/mmproj.gguf') })
      const ids = [5, 6, 7, 8, 9]
      const logits = lastLogits(whole, ids)
      assertClose(lastLogits(internvl, ids).subarray(0, logits.length), logits)
      whole.dispose()
    }))

  it('the seed determines the projector', async () => {
    const weightOf = async (seed: number): Promise<string> => {
      let values = ''
      const parts = { vision: part('vit'), decoder: part('qwen3') }
      await withAssembled({ ...parts, seed }, ({ params }) => {
        values = `${(params.model.multi_modal_projector.linear_1.weight as tf.Tensor).dataSync()}`
      })
      return values
    }
    const [first, again, other] = [await weightOf(1), await weightOf(1), await weightOf(2)]
    assert.equal(first, again)
    assert.notEqual(first, other)
  })

  it('the positions of the tower are resized for another size of the tiles', () =>
    withAssembled({ vision: part('dinov2'), decoder: part('qwen2'), imageSize: 40, maxPatches: 3 }, ({ config, processor }) => {
      assert.deepEqual(config.visionConfig.imageSize, [40, 40])
      assert.deepEqual([config.imageSeqLength, processor.config.imageSeqLength], [25, 25])
      assert.equal(processor.config.image.maxPatches, 3)
    }))
})
