import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import type { Layout } from '../../../models/checkpoint/layout.js'
import { loadModel } from '../../../models/checkpoint/load-model.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import type { Json } from '../../../models/config/config-fields.js'
import { parseConfig } from '../../../models/config/parse-config.js'
import { inFolder, modelJson, smallModel } from '../folders.js'

const at = (path: string) => new URL(path, import.meta.url)
const usual: readonly Layout[] = ['hf-first', 'hf', 'original']

/** config.json of a small model in OpenGVLab's dialect. */
const originalJson = (modelType: string, decoder: string): Json => {
  const { text_config, vision_config, ...json } = modelJson(decoder) as Record<string, Json>
  return {
    ...json,
    model_type: modelType,
    llm_config: text_config,
    vision_config: { ...vision_config, image_size: 8, patch_size: 2 }
  }
}

/** A row of the table: the model of its test, the layouts of its columns, and its folders of fixtures. */
interface Row {
  readonly json: Json
  readonly layouts?: readonly (Layout | undefined)[]
  /** Folders in `properties/generation/gguf/files`. */
  readonly gguf?: string
  /** Folders in `properties/generation/quantized/folders` of each name in the last column; MXFP4 is tested by `convert-model.test.ts`. */
  readonly quantized?: Readonly<Record<string, readonly string[]>>
}

/** The rows of the table in README.md by the names of their decoders and models. */
const rows: Readonly<Record<string, Row>> = {
  'InternVL2-1B, 2.5, 3; SenseNova-SI, Vintern': {
    json: modelJson('qwen2'),
    gguf: 'qwen2',
    quantized: { AWQ: ['autoawq'], GPTQ: ['gptq', 'gptqmodel'], NF4: ['nf4'], int8: ['int8'] }
  },
  'InternVL3.5': { json: modelJson('qwen3'), gguf: 'qwen3', quantized: { FP4: ['fp4'], FP8: ['fp8-tensor', 'fp8-block'] } },
  'InternVL3.5-30B-A3B, 241B-A28B': { json: modelJson('qwen3_moe'), gguf: 'qwen3moe' },
  'InternVL3.5-20B-A4B': { json: modelJson('gpt_oss'), gguf: 'gpt-oss', quantized: { MXFP4: [] } },
  'InternVL3.5-Flash': {
    json: { ...modelJson('qwen3'), flash_mode: true, vision_config: { ...(modelJson('qwen3').vision_config as Json) } }
  },
  'InternVL2, 2.5 (2B, 8B, 26B), Chat-V1-5': {
    json: modelJson('llama'),
    layouts: ['hf-first', 'hf', 'original-internlm2'],
    gguf: 'internlm2',
    quantized: { AWQ: ['awq'] }
  },
  'InternVL3-9B': { json: modelJson('internlm3') },
  'InternVL2-4B': { json: modelJson('phi3'), gguf: 'phi3' },
  'InternVL2-40B, 76B, Chat-V1-2, Qianfan-VL': { json: modelJson('llama'), gguf: 'llama' },
  'Intern-S1, Intern-S1-mini': { json: { ...modelJson('qwen3'), model_type: 'interns1' } },
  'Qianfan-OCR': {
    json: { ...modelJson('qwen3'), model_type: 'qianfan_ocr' },
    layouts: [undefined, 'hf-qianfan_ocr', undefined]
  },
  'InternVL-U (understanding)': {
    json: originalJson('internvlu_chat', 'qwen3'),
    layouts: [undefined, undefined, 'original']
  }
}

const readme = readFileSync(at('../../../README.md'), 'utf8')
const table = readme
  .slice(readme.indexOf('## What opens'))
  .split('\n')
  .filter((line) => line.startsWith('|'))
  .slice(2)
  .map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim())
  )

describe('the table of README.md', () => {
  it('has the rows of this test, and says yes where the test opens a folder', () => {
    const expected = Object.entries(rows).map(([name, { layouts = usual, gguf, quantized = {} }]) => [
      name,
      ...layouts.map((layout) => (layout ? 'yes' : '–')),
      gguf ? 'yes' : '–',
      Object.keys(quantized).join(', ') || '–'
    ])
    assert.deepEqual(
      table.slice(0, expected.length).map(([name, , ...cells]) => [name, ...cells]),
      expected
    )
    assert.equal(
      table.findIndex(([name]) => name === 'InternVL-U (understanding)'),
      expected.length - 1
    )
    for (const { gguf, quantized = {} } of Object.values(rows)) {
      if (gguf) assert.ok(existsSync(at(`../../generation/gguf/files/${gguf}/model.gguf`)), gguf)
      for (const folder of Object.values(quantized).flat())
        assert.ok(existsSync(at(`../../generation/quantized/folders/${folder}/model.safetensors`)), folder)
    }
  })

  for (const [name, { json, layouts = usual }] of Object.entries(rows))
    for (const layout of layouts)
      if (layout)
        it(`${name}, ${layout}: a folder opens with the weights that it had`, () =>
          inFolder(async (folder) => {
            const { params } = smallModel(json)
            const config = { ...getOrThrow(parseConfig(json)), imageTokenId: 1 }
            const dir = join(folder, 'model')
            await orThrow(saveModel(dir, { config, params, layout }))
            const loaded = await orThrow(loadModel(dir, { imageTokenId: 1 }))
            const leaves = new Map(namedParameters(loaded.params))
            for (const [path, leaf] of namedParameters(params))
              assert.deepEqual(leaves.get(path)?.dataSync(), leaf.dataSync(), path)
            assert.equal(leaves.size, namedParameters(params).length)
            const sameNames = layout === 'hf-qianfan_ocr' ? 'original' : layout
            assert.equal(loaded.layout, sameNames)
            loaded.dispose()
            disposeParams(params)
          }))
})
