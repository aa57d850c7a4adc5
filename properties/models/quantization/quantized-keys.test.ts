import assert from 'node:assert/strict'
import { join } from 'node:path'
import fc from 'fast-check'
import { orThrow } from '../../../lib/error.js'
import { declarations, disposeParams, namedParameters } from '../../../lib/params.js'
import { dequantizeRows } from '../../../lib/quantization/formats.js'
import { type ConvertModelOptions, convertModel } from '../../../models/checkpoint/convert-model.js'
import { inspectModel } from '../../../models/checkpoint/inspect-model.js'
import type { Layout } from '../../../models/checkpoint/layout.js'
import { type LoadModelOptions, loadModel } from '../../../models/checkpoint/load-model.js'
import { openCheckpoint } from '../../../models/checkpoint/open-checkpoint.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import { internVL } from '../../../models/internvl/internvl.js'
import { loadVision } from '../../../models/internvl/vision-encoder.js'
import { precisionOf } from '../../../models/quantization/precision.js'
import { splitFormat } from '../../../models/quantization/quantized-keys.js'
import { checkAsync } from '../../laws/check.js'
import { inFolder, quantizableJson, readJson, smallModel, stored, writeFolder } from '../folders.js'

const convert = async (from: string, to: string, options: Partial<ConvertModelOptions>): Promise<void> => {
  const checkpoint = await orThrow(openCheckpoint(from, { imageTokenId: 1 }))
  await orThrow(convertModel(checkpoint, to, { layout: 'hf', ...options })).finally(() => checkpoint.files.close())
}

type Leaf = readonly [key: string, dtype: string, shape: readonly number[], numbers: Float32Array | Int32Array]

const leavesOf = (params: unknown): readonly Leaf[] =>
  namedParameters(params).map(([key, leaf]) => [key, leaf.dtype, leaf.shape, leaf.dataSync() as Float32Array])

/** Every parameter of a loaded folder. */
const loaded = async (folder: string, options: LoadModelOptions = {}): Promise<readonly Leaf[]> => {
  const { params, dispose } = await orThrow(loadModel(folder, { imageTokenId: 1, ...options }))
  const all = leavesOf(params)
  dispose()
  return all
}

/** The tags and the messages of the expected errors. */
const issuesOf = async (result: Promise<{ readonly _tag: string; readonly left?: unknown }>) => {
  const { _tag, left } = await result
  assert.equal(_tag, 'Left')
  const issues = left as readonly { readonly _tag: string; readonly message: string }[]
  return { tags: issues.map((f) => f._tag), text: issues.map((f) => f.message).join('\n') }
}

/** A small model in a folder, and empty folders beside it for conversions. */
const withModel = (decoder: string, dtype: 'float32' | 'bfloat16', test: (...folders: string[]) => Promise<void>) =>
  inFolder(async (folder) => {
    const { config, params } = smallModel(quantizableJson(decoder))
    const [source, ...others] = ['source', 'a', 'b', 'c'].map((name) => join(folder, name))
    await orThrow(saveModel(source!, { config, params, dtype }))
    disposeParams(params)
    await test(source!, ...others)
  })

const decoders = ['qwen2', 'qwen3', 'llama', 'phi3', 'qwen3_moe', 'gpt_oss'] as const
const bits = fc.constantFrom('int8', 'int4' as const)
const sample = fc.record({
  decoder: fc.constantFrom(...decoders),
  dtype: fc.constantFrom('float32', 'bfloat16' as const),
  quantize: fc.oneof(bits, fc.record({ vision: bits }), fc.record({ decoder: bits })),
  layout: fc.constantFrom<Layout>('hf', 'hf-first', 'original')
})

describe('quantized checkpoints', () => {
  it('a quantized folder loads without options like its source with quantize, bit for bit, in every layout', () =>
    checkAsync(
      sample,
      ({ decoder, dtype, quantize, layout }) =>
        withModel(decoder, dtype, async (source, a, b) => {
          await convert(source, a!, { quantize, layout })
          assert.deepEqual(await loaded(a!), await loaded(source, { quantize }))
          const note = (await readJson(a!)).quantization_config as Record<string, unknown>
          const all = typeof quantize === 'string' ? { vision: quantize, decoder: quantize } : quantize
          assert.deepEqual(note, { library: 'internvl-tfjs', version: 1, ...all })
          await convert(a!, b!, {})
          assert.deepEqual(await loaded(b!), await loaded(a!))
        }),
      12
    ))

  it('a model loaded with quantize is saved quantized and loads so', () =>
    checkAsync(
      sample,
      ({ decoder, dtype, quantize, layout }) =>
        withModel(decoder, dtype, async (source, a) => {
          const { config, params, dispose } = await orThrow(loadModel(source, { quantize }))
          await orThrow(saveModel(a!, { config, params, layout }))
          assert.deepEqual(await loaded(a!), leavesOf(params))
          dispose()
        }),
      8
    ))

  it('bfloat16 is saved as BF16', () =>
    withModel('qwen2', 'bfloat16', async (source, a, b) => {
      const { config, params, dispose } = await orThrow(loadModel(source, { dtype: 'bfloat16' }))
      await orThrow(saveModel(a!, { config, params }))
      await orThrow(saveModel(b!, { config, params, dtype: 'bfloat16' }))
      dispose()
      assert.deepEqual(await loaded(a!), await loaded(source))
      assert.deepEqual(await stored(b!), await stored(source))
    }))

  it('a dequantized folder has the values of the quantized weights', () =>
    withModel('qwen2', 'float32', async (source, a, b) => {
      await convert(source, a!, { quantize: 'int4' })
      await convert(a!, b!, { dtype: 'float32' })
      assert.ok(!('quantization_config' in (await readJson(b!))))
      const { config } = smallModel(quantizableJson('qwen2'))
      const columns = new Map(declarations(internVL(config)).map(([key, { shape }]) => [key, shape.at(-1)!]))
      const expected = (await loaded(a!)).map(([key, , , numbers]) => {
        const { path, format } = splitFormat(key)
        return [path, format ? dequantizeRows(format, numbers as Int32Array, columns.get(path)!) : numbers]
      })
      assert.deepEqual(
        (await loaded(b!)).map(([key, , , numbers]) => [key, numbers]),
        expected
      )
    }))

  it('4bit, the earlier name of int4, selects the same formats', () => {
    assert.deepEqual(precisionOf({ quantize: '4bit' }), precisionOf({ quantize: 'int4' }))
    assert.deepEqual(precisionOf({ quantize: { decoder: '4bit' } }), precisionOf({ quantize: { decoder: 'int4' } }))
  })

  it('quantizing a quantized folder is refused everywhere, with its quantization', () =>
    withModel('qwen2', 'float32', async (source, a, b) => {
      await convert(source, a!, { quantize: { vision: 'int8', decoder: 'int4' } })
      const [whole, vision] = [
        await issuesOf(loadModel(a!, { quantize: 'int8' })()),
        await issuesOf(loadVision(a!, { quantize: 'int8' })())
      ]
      assert.match(whole.text, /quantized already \(vision in int8, decoder in int4\).*leave quantize out/)
      assert.match(vision.text, /quantized already \(vision in int8\)/)
      await assert.rejects(convert(a!, b!, { quantize: 'int4' }), /quantized already/)
      await assert.rejects(convert(source, b!, { quantize: 'int4', dtype: 'float8' as 'float16' }), /float32 or bfloat16/)
    }))

  it('packed data of another type or width, and weights that cannot be quantized, are errors by key', () =>
    withModel('qwen2', 'float32', async (source, a) => {
      await convert(source, a!, { quantize: 'int8' })
      const tensors = (await stored(a!)).map((tensor) => ({ ...tensor, bytes: () => Buffer.from(tensor.bytes, 'base64') }))
      const [first, second, ...rest] = tensors.filter(({ key }) => key.endsWith('.int8'))
      const spoilt = [
        { ...first!, dtype: 'F32' as const },
        { ...second!, shape: [second!.shape[0]! * second!.shape[1]!, 1] },
        ...rest,
        ...tensors
          .filter(({ key }) => !key.endsWith('.int8'))
          .map((tensor) =>
            tensor.key.endsWith('norm.weight') && tensor.key.includes('language_model.norm')
              ? { ...tensor, key: `${tensor.key}.int8` }
              : tensor
          )
      ]
      await writeFolder(a!, await readJson(a!), spoilt)
      const { tags, text } = await issuesOf(loadModel(a!)())
      assert.deepEqual(tags.sort(), ['MissingKey', 'QuantizedType', 'QuantizedType', 'ShapeMismatch', 'UnexpectedKey'])
      for (const key of [first!.key, second!.key, 'model.language_model.norm.weight.int8']) assert.ok(text.includes(key), key)
    }))

  it('inspect shows the formats and counts weights', () =>
    withModel('qwen2', 'bfloat16', async (source, a) => {
      await convert(source, a!, { quantize: { decoder: 'int4' } })
      const [plain, packed] = [await orThrow(inspectModel(source)), await orThrow(inspectModel(a!))]
      assert.deepEqual(packed.tree.dtypes, ['BF16', 'int4', 'int6', 'int8'])
      assert.equal(packed.tree.parameters, plain.tree.parameters)
      assert.ok(packed.tree.bytes < plain.tree.bytes)
      assert.deepEqual(packed.issues, [])
    }))
})
