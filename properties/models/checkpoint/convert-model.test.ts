import assert from 'node:assert/strict'
import { join } from 'node:path'
import fc from 'fast-check'
import type { StoredDtype } from '../../../lib/dtype.js'
import { type Issues, orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { dequantizeMxfp4 } from '../../../lib/quantization/mxfp4.js'
import type { TensorSource } from '../../../lib/safetensors/write.js'
import { type ConvertModelOptions, convertModel } from '../../../models/checkpoint/convert-model.js'
import type { Layout, Planned } from '../../../models/checkpoint/layout.js'
import { loadModel } from '../../../models/checkpoint/load-model.js'
import { openCheckpoint } from '../../../models/checkpoint/open-checkpoint.js'
import { pieceReader } from '../../../models/checkpoint/read-planned.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import { hfJson } from '../../arbitraries/config.js'
import { checkAsync } from '../../laws/check.js'
import { inFolder, modelJson, readJson, smallModel, stored, writeFolder } from '../folders.js'

const convert = async (from: string, to: string, options: ConvertModelOptions): Promise<Layout> => {
  const { image_token_id: imageTokenId = 1 } = (await readJson(from)) as { readonly image_token_id?: number }
  const checkpoint = await orThrow(openCheckpoint(from, { imageTokenId }))
  try {
    return await orThrow(convertModel(checkpoint, to, options))
  } finally {
    await checkpoint.files.close()
  }
}

/** A tensor source under a key of the module tree. */
const source = (key: string, dtype: StoredDtype, shape: readonly number[], bytes: Uint8Array): TensorSource => ({
  key,
  dtype,
  shape,
  bytes: () => bytes
})
const float32 = (key: string, shape: readonly number[], values: Float32Array) =>
  source(key, 'F32', shape, new Uint8Array(values.buffer, values.byteOffset, values.byteLength))

/** The parameters of a small model as sources, except for the keys of `left`. */
const sourcesOf = (params: unknown, left: RegExp): readonly TensorSource[] =>
  namedParameters(params)
    .filter(([key]) => !left.test(key))
    .map(([key, leaf]) => float32(key, leaf.shape, Float32Array.from(leaf.dataSync())))

const decoders = ['qwen2', 'qwen3', 'llama', 'phi3', 'qwen3_moe', 'gpt_oss'] as const

describe('converting a checkpoint', () => {
  it('converting to a layout and back is bit-equal for every decoder, layout, type and shard size, and config.json keeps unknown fields', () =>
    checkAsync(
      fc.record({
        json: fc.oneof(
          hfJson,
          fc.constantFrom(...decoders).map((decoder) => ({ ...modelJson(decoder), dtype: 'bfloat16' }))
        ),
        to: fc.constantFrom<Layout>('hf', 'hf-first', 'original'),
        from: fc.constantFrom<Layout>('hf', 'hf-first', 'original'),
        dtype: fc.constantFrom('float32', 'bfloat16', 'float16' as const),
        shardBytes: fc.constantFrom(300, 1e9)
      }),
      async ({ json, from, to, dtype, shardBytes }) => {
        const { config, params } = smallModel(json)
        await inFolder(async (folder) => {
          const [a, b, c] = ['a', 'b', 'c'].map((name) => join(folder, name)) as [string, string, string]
          await orThrow(saveModel(a, { config, params, dtype, layout: from, json: { ...json, mine: { custom: true } } }))
          assert.equal(await convert(a, b, { layout: to, shardBytes }), to)
          assert.equal(await convert(b, c, { layout: from }), from)
          assert.deepEqual(await stored(c), await stored(a))
          assert.deepEqual((await readJson(b)).mine, { custom: true })
          const [before, after] = [await orThrow(openCheckpoint(a)), await orThrow(openCheckpoint(c))]
          assert.deepEqual({ ...after.config, original: 0 }, { ...before.config, original: 0 })
          await Promise.all([before.files.close(), after.files.close()])
        })
        disposeParams(params)
      },
      25
    ))

  it('InternLM2’s names are restored when its hf folder is converted back to original', async () => {
    const { config, params } = smallModel(modelJson('llama'))
    await inFolder(async (folder) => {
      const [a, b, c] = ['a', 'b', 'c'].map((name) => join(folder, name)) as [string, string, string]
      await orThrow(saveModel(a, { config, params, layout: 'original-internlm2' }))
      assert.equal(((await readJson(a)).llm_config as Record<string, unknown>).model_type, 'internlm2')
      await convert(a, b, { layout: 'hf' })
      assert.equal(((await readJson(b)).text_config as Record<string, unknown>).model_type, 'llama')
      assert.equal(await convert(b, c, { layout: 'original' }), 'original-internlm2')
      assert.deepEqual(await stored(c), await stored(a))
    })
    disposeParams(params)
  })

  it('conversion to another type rounds once; to a wider type and back changes nothing', () =>
    checkAsync(fc.constantFrom('bfloat16', 'float16' as const), async (dtype) => {
      const { config, params } = smallModel(modelJson('qwen2'))
      await inFolder(async (folder) => {
        const [a, b, c] = ['a', 'b', 'c'].map((name) => join(folder, name)) as [string, string, string]
        await orThrow(saveModel(a, { config, params, dtype }))
        await convert(a, b, { layout: 'hf', dtype: 'float32' })
        assert.equal((await readJson(b)).dtype, 'float32')
        await convert(b, c, { layout: 'hf', dtype })
        assert.deepEqual(await stored(c), await stored(a))
        assert.equal((await readJson(c)).dtype, dtype)
      })
      disposeParams(params)
    }))

  it('Qwen3-MoE’s stacked experts equal its separate experts', async () => {
    const { config, params } = smallModel(modelJson('qwen3_moe'))
    const experts = 'model.language_model.layers.0.mlp.experts'
    const of = new Map(namedParameters(params).map(([key, leaf]) => [key, Float32Array.from(leaf.dataSync())]))
    const join_ = (...names: readonly string[]) =>
      Float32Array.from(names.flatMap((name) => [...of.get(`${experts}.${name}.weight`)!]))
    await inFolder(async (folder) => {
      const { moeIntermediateSize: I, hiddenSize: D } = config.textConfig as typeof config.textConfig & {
        moeIntermediateSize: number
      }
      const stacked = [
        float32(`${experts}.gate_up_proj`, [2, 2 * I, D], join_('0.gate_proj', '0.up_proj', '1.gate_proj', '1.up_proj')),
        float32(`${experts}.down_proj`, [2, D, I], join_('0.down_proj', '1.down_proj'))
      ]
      await writeFolder(folder, modelJson('qwen3_moe'), [...sourcesOf(params, /experts/), ...stacked])
      const loaded = await orThrow(loadModel(folder))
      for (const [key, leaf] of namedParameters(loaded.params)) assert.deepEqual([...leaf.dataSync()], [...of.get(key)!], key)
      loaded.dispose()
    })
    disposeParams(params)
  })

  it('MXFP4 experts load and convert dequantized', async () => {
    const json = modelJson('gpt_oss')
    const { params } = smallModel(json)
    const experts = 'model.language_model.layers.0.mlp.experts'
    const packed = ([E, out, G]: readonly [number, number, number], name: string) => {
      const bytes = (n: number, of: number) => Uint8Array.from({ length: n }, (_, i) => (i * of + 3) % 256)
      const [blocks, scales] = [bytes(E * out * G * 16, 37), bytes(E * out * G, 5).map((b) => 120 + (b % 9))]
      return {
        numbers: dequantizeMxfp4(blocks, scales, [E, out, G]),
        key: `${experts}.${name}`,
        sources: [
          source(`${experts}.${name}_blocks`, 'U8', [E, out, G, 16], blocks),
          source(`${experts}.${name}_scales`, 'U8', [E, out, G], scales)
        ]
      }
    }
    const all = [packed([2, 64, 1], 'gate_up_proj'), packed([2, 32, 1], 'down_proj')]
    await inFolder(async (folder) => {
      const [a, b] = [join(folder, 'a'), join(folder, 'b')]
      const quantization_config = { quant_method: 'mxfp4' }
      const written = [...sourcesOf(params, /experts\.\w+_proj$/), ...all.flatMap(({ sources }) => sources)]
      await writeFolder(a, { ...json, quantization_config }, written)
      await convert(a, b, { layout: 'original' })
      assert.ok(!('quantization_config' in (await readJson(b))))
      for (const dir of [a, b]) {
        const loaded = await orThrow(loadModel(dir))
        const leaves = new Map(namedParameters(loaded.params))
        for (const { key, numbers } of all) assert.deepEqual(leaves.get(key)!.dataSync(), numbers, `${dir}: ${key}`)
        loaded.dispose()
      }
    })
    disposeParams(params)
  })

  it('a tied head without embeddings is used as the embeddings', async () => {
    const json = { ...modelJson('qwen2'), tie_word_embeddings: true }
    const { params } = smallModel(json)
    const table = 'model.language_model.embed_tokens.weight'
    await inFolder(async (folder) => {
      const values = Float32Array.from(new Map(namedParameters(params)).get(table)!.dataSync())
      await writeFolder(folder, json, [...sourcesOf(params, /embed_tokens/), float32('lm_head.weight', [41, 32], values)])
      const loaded = await orThrow(loadModel(folder))
      assert.deepEqual([...new Map(namedParameters(loaded.params)).get(table)!.dataSync()], [...values])
      loaded.dispose()
    })
    disposeParams(params)
  })

  it('a tensor of any size is read in small pieces, into the same memory', async () => {
    const tensor: Planned = { key: 'x', dtype: 'F32', shape: [300, 70_000], parts: [{ source: 'x', begin: 0, end: 84e6 }] }
    const memories = new Set<ArrayBufferLike>()
    let [most, total] = [0, 0]
    for await (const piece of pieceReader(async (_, begin, end, into) => into ?? new Uint8Array(end - begin))(tensor)) {
      memories.add(piece.buffer)
      most = Math.max(most, piece.byteLength)
      total += piece.byteLength
    }
    assert.equal(total, 84e6)
    assert.ok(most <= 9 * 2 ** 20 && most % (4 * 70_000) === 0, `${most} bytes`)
    assert.equal(memories.size, 2)
  })

  it('unknown keys and fields that a layout cannot express are all errors, and nothing is written', async () => {
    const json = { ...modelJson('qwen2'), projector_hidden_act: 'relu' }
    const { params } = smallModel(json)
    await inFolder(async (folder) => {
      await writeFolder(folder, json, [
        ...sourcesOf(params, /cls_token/),
        float32('model.language_model.extra', [1], new Float32Array(1))
      ])
      const checkpoint = await orThrow(openCheckpoint(folder))
      const result = await convertModel(checkpoint, join(folder, 'b'), { layout: 'original' })()
      await checkpoint.files.close()
      const issues = (result as { readonly left: Issues }).left.map(({ _tag }) => _tag)
      assert.deepEqual(issues, ['MissingKey', 'UnexpectedKey', 'ConfigUntranslatable'])
      assert.ok(!(await readJson(folder, 'b/config.json').catch(() => undefined)))
    })
    disposeParams(params)
  })
})
