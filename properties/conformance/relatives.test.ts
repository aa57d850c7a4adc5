import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { load } from '../../generation/checkpoint/load.js'
import { convert, save } from '../../generation/checkpoint/save.js'
import { orThrow } from '../../lib/error.js'
import { namedParameters } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import type { Layout } from '../../models/checkpoint/layout.js'
import { loadProcessor } from '../../processors/processor.js'
import { imageContextId } from '../../processors/text/placeholders.js'
import { originalTemplate } from '../../processors/text/published-templates.js'
import { inFolder, readJson, stored } from '../models/folders.js'
import { findCases, readNumbers } from './case.js'
import { modelCaseChecks } from './model-case.js'
import { layoutsOf } from './reference-inputs.js'

const [folder, images] = ['./relatives', '../../generation/demo'].map((path) =>
  fileURLToPath(new URL(path, import.meta.url))
) as [string, string]
const cases = findCases(folder)
const caseOf = (name: string) => cases.find((one) => one.name === name)!
const checkpointOf = (name: string) => join(caseOf(name).dir, layoutsOf(caseOf(name))[0]!)

/** Logits of a folder for the inputs of a case, beside those of the reference: the greatest difference, as a share of the greatest logit. */
const distance = async (dir: string, name: string): Promise<number> => {
  const numbers = await readNumbers(join(caseOf(name).dir, 'one-image.safetensors'))
  const [ids, pixels, expected] = ['input_ids', 'pixel_values', 'logits'].map((key) => numbers.get(key)!)
  const internvl = await load(dir)
  const logits = tf.tidy(() => {
    const inputIds = tf.tensor2d(Int32Array.from(ids!.values), ids!.shape as [number, number], 'int32')
    const pixelValues = tf.tensor4d(pixels!.values, pixels!.shape as [number, number, number, number])
    return internvl.model({ inputIds, pixelValues }).logits.dataSync()
  })
  internvl.dispose()
  const greatest = expected!.values.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
  return expected!.values.reduce((most, x, i) => Math.max(most, Math.abs(x - logits[i]!)), 0) / greatest
}

describe('relatives of InternVL (cases of make_relatives.py)', () => {
  for (const one of cases)
    it(`${one.name}: prompts, states, features, logits, tokens, loss and gradients are those of the reference`, async () => {
      const checks = await modelCaseChecks(one, images)
      assert.ok(checks.length > 20, `${checks.length} checks`)
      assert.deepEqual(
        checks.filter(({ outcome }) => outcome._tag !== 'Passed'),
        []
      )
    })

  const targets: readonly (readonly [name: string, layout: Layout, written: Layout, modelType: string])[] = [
    ['qianfan-ocr', 'hf', 'hf-qianfan_ocr', 'qianfan_ocr'],
    ['interns1-mini', 'hf', 'hf', 'interns1'],
    ['interns1-mini', 'original', 'original', 'internvl_chat'],
    ['qianfan-vl', 'hf', 'hf', 'internvl'],
    ['chat-v1-2', 'hf', 'hf', 'internvl'],
    ['internvl-u', 'original', 'original', 'internvlu_chat']
  ]
  for (const [name, layout, written, modelType] of targets)
    it(`${name}, converted to ${layout}: the same logits, and model_type ${modelType}`, () =>
      inFolder(async (out) => {
        const to = join(out, 'to')
        assert.equal(await convert(checkpointOf(name), to, { layout }), written)
        assert.equal((await readJson(to)).model_type, modelType)
        assert.ok((await distance(to, name)) < 1e-4)
      }))

  it('Qianfan-OCR is written under the published names, which Transformers 5.24 renames when it saves', () =>
    inFolder(async (out) => {
      await convert(checkpointOf('qianfan-ocr'), join(out, 'to'), { layout: 'hf' })
      const keys = async (dir: string) => (await stored(dir)).map(({ key }) => key)
      const resaved = await keys(checkpointOf('qianfan-ocr'))
      assert.ok(resaved.some((key) => key.startsWith('language_model.model.encoder.layers.0.')))
      const published = resaved.map((key) => key.replace('language_model.model.encoder.', 'language_model.model.')).sort()
      assert.deepEqual((await keys(join(out, 'to'))).sort(), published)
    }))

  it('InternVL-U’s conversation template is that of InternVL2.5', () =>
    assert.equal(originalTemplate('qwen2_5-chat-v3', '<i>', '<v>'), originalTemplate('internvl2_5', '<i>', '<v>')))

  it('Intern-S1 saved from memory keeps its model type', () =>
    inFolder(async (out) => {
      const { config, params, dispose } = await load(checkpointOf('interns1-mini'))
      await save(join(out, 'to'), { config, params, processorFilesFrom: checkpointOf('interns1-mini') })
      dispose()
      const json = await readJson(join(out, 'to'))
      assert.deepEqual([json.model_type, json.architectures], ['interns1', ['InternS1ForConditionalGeneration']])
      assert.equal((json.vision_config as { drop_path_rate: number }).drop_path_rate, 0.1)
      assert.ok((await distance(join(out, 'to'), 'interns1-mini')) < 1e-4)
    }))

  it('InternVL-U has a row for each special token, and images of any size are refused by name', () =>
    inFolder(async (out) => {
      const { params, config, dispose } = await load(checkpointOf('internvl-u'))
      const table = namedParameters(params).find(([path]) => path === 'model.special_token_embedding.weight')
      assert.deepEqual(table?.[1].shape, [10, config.textConfig.hiddenSize])
      assert.ok(config.specialTokens!.ids!.every((id) => id >= 0))
      dispose()
      await convert(checkpointOf('internvl-u'), join(out, 'to'), { layout: 'original' })
      const file = join(out, 'to', 'config.json')
      await writeFile(file, (await readFile(file, 'utf8')).replace('"anyres_image_size": false', '"anyres_image_size": true'))
      await assert.rejects(load(join(out, 'to')), /anyres_image_size should be false/)
    }))

  it('Qianfan-OCR: the template marks an image by <image>; the same text in a message stays text', async () => {
    const processor = await orThrow(loadProcessor(checkpointOf('qianfan-ocr')))
    const image = { type: 'image', path: join(images, 'squares.png') } as const
    const count = async (text: string) => {
      const { ids } = await orThrow(processor.encodeBatch([[{ role: 'user', content: [image, { type: 'text', text }] }]]))
      return ids[0]!.filter((id) => id === imageContextId(processor.tokenizer)).length
    }
    const tokens = await count('What is <image>?')
    assert.ok(tokens > 0 && tokens % 4 === 0)
    assert.equal(tokens, await count('What is this?'))
  })

  it('Qianfan-OCR as first released, with a config.json in the dialect of OpenGVLab, opens too', () =>
    inFolder(async (out) => {
      await convert(checkpointOf('interns1-mini'), join(out, 'to'), { layout: 'original' })
      const file = join(out, 'to', 'config.json')
      await writeFile(file, (await readFile(file, 'utf8')).replace('"internvl_chat"', '"qianfan_ocr"'))
      assert.ok((await distance(join(out, 'to'), 'interns1-mini')) < 1e-4)
    }))
})
