import assert from 'node:assert/strict'
import { join } from 'node:path'
import fc from 'fast-check'
import { generate } from '../../../generation/decoding/generate.js'
import { getOrThrow, orThrow } from '../../../lib/error.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { loadModel } from '../../../models/checkpoint/load-model.js'
import { saveModel } from '../../../models/checkpoint/save-model.js'
import { parseConfig, type TextConfig } from '../../../models/config/parse-config.js'
import { familyOf } from '../../../models/families.js'
import { decoderLaws } from '../../laws/decoder-laws.js'
import { inFolder, modelJson, readJson, smallModel } from '../folders.js'

// Run by `extending.test.ts` in a copy of the source that has the toy decoder, tower and model type of docs/extending.md.

const toyDecoder: fc.Arbitrary<TextConfig> = fc
  .record({ layers: fc.integer({ min: 1, max: 2 }), power: fc.integer({ min: 1, max: 3 }) })
  .map(({ layers, power }) => {
    const text_config = { model_type: 'toy', vocab_size: 11, hidden_size: 8, intermediate_size: 6, num_hidden_layers: layers, num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 8, mlp_power: power } // biome-ignore format: one line
    return getOrThrow(parseConfig({ model_type: 'internvl', text_config })).textConfig
  })

decoderLaws('toy', toyDecoder)

const { vision_config, ...json } = modelJson('toy') as Record<string, object>
const toyJson = { ...json, model_type: 'toy_vl', vision_config: { ...vision_config, model_type: 'toy_vision' } }

describe('a model with the toy decoder, tower and model type', () => {
  it('is saved and loaded, number by number, and config.json has its names and fields', () =>
    inFolder(async (folder) => {
      const { config, params } = smallModel({
        ...toyJson,
        text_config: { ...(modelJson('toy').text_config as object), mlp_power: 3 }
      })
      assert.equal(familyOf(config).imageToken, '<image_patch>')
      await orThrow(saveModel(join(folder, 'toy'), { config, params }))
      const written = (await readJson(join(folder, 'toy'))) as Record<string, Record<string, unknown>>
      assert.deepEqual(
        [written.model_type, written.text_config!.model_type, written.text_config!.mlp_power, written.vision_config!.model_type],
        ['toy_vl', 'toy', 3, 'toy_vision']
      )
      const loaded = await orThrow(loadModel(join(folder, 'toy')))
      const [before, after] = [params, loaded.params].map((tree) =>
        namedParameters(tree).map(([path, x]) => [path, x.dataSync()])
      )
      assert.deepEqual(after, before)
      disposeParams(params)
      loaded.dispose()
    }))

  it('generates from text and an image', async () => {
    const { config, params } = smallModel(toyJson)
    const { modelFor } = await import('../../../models/families.js')
    const inputs = {
      inputIds: tf.tensor2d([[5, 1, 1, 1, 1, 7]], undefined, 'int32'),
      pixelValues: tf.randomNormal<tf.Rank.R4>([1, 3, 8, 8], 0, 1, 'float32', 1)
    }
    const stream = generate(modelFor(config).apply(params), inputs, { maxNewTokens: 3, doSample: false })
    let steps = 0
    for await (const _ of stream) steps++
    assert.equal(steps, 3)
    tf.dispose([inputs.inputIds, inputs.pixelValues])
    disposeParams(params)
  })
})
