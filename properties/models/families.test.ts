import assert from 'node:assert/strict'
import { declarations } from '../../lib/params.js'
import { parseConfig } from '../../models/config/parse-config.js'
import { decoders } from '../../models/decoders/index.js'
import {
  families,
  familyOf,
  layoutNames,
  modelFor,
  modelTypes,
  partOfPath,
  unsupportedModelTypes
} from '../../models/families.js'
import { visionTowers } from '../../models/internvl/vision-towers.js'
import { modelJson } from './folders.js'

const parsed = (json: unknown) => {
  const result = parseConfig(json)
  return result._tag === 'Right' ? result.right : assert.fail(result.left.map(({ message }) => message).join('\n'))
}

describe('the registry of model types', () => {
  it('has every model_type, decoder and vision tower once', () => {
    const names = [
      modelTypes,
      decoders.map(({ modelType }) => modelType),
      visionTowers.map(({ modelType }) => modelType),
      layoutNames
    ]
    for (const list of names) assert.equal(new Set(list).size, list.length)
    assert.deepEqual([...modelTypes].sort(), [
      ...['interns1', 'internvl', 'internvl_chat', 'internvlu_chat', 'qianfan_ocr', 'qianfanvl_chat']
    ])
    for (const type of Object.keys(unsupportedModelTypes)) assert.ok(!modelTypes.includes(type), type)
  })

  it('every model type is parsed to the family that has it, and written under its name', () => {
    for (const family of families)
      for (const { modelType, decoderKey, write } of Object.values(family.dialects)) {
        const { text_config, ...json } = modelJson('qwen2') as Record<string, object>
        const config = parsed({ ...json, model_type: modelType, [decoderKey]: text_config })
        assert.equal(familyOf(config), family)
        assert.equal(write(config).model_type, modelType)
      }
  })

  it('every parameter is in one part, by its path', () => {
    const config = parsed(modelJson('qwen3'))
    const { parts } = familyOf(config)
    for (const [path] of declarations(modelFor(config))) {
      const part = partOfPath(path)
      assert.ok(part && path.startsWith(`${parts[part]}.`), path)
    }
    assert.equal(partOfPath('model.language_model.embed_tokens.weight'), 'embeddings')
    assert.equal(partOfPath('model.language_model.norm.weight'), 'decoder')
    assert.equal(partOfPath('optimizer.step'), undefined)
  })

  it('a known model that is not supported is refused by name, with a description', () => {
    const result = parseConfig({ model_type: 'internvl_vision' })
    const [issue] = result._tag === 'Left' ? result.left : assert.fail('expected an error')
    assert.equal(issue._tag, 'ModelTypeUnsupported')
    assert.match(
      issue.message,
      /model_type internvl_vision is a vision tower alone.*this library loads internvl, .*internvl_chat/
    )
    const messageOf = (json: object): string => {
      const parsed = parseConfig(json)
      return parsed._tag === 'Left' ? parsed.left[0].message : 'none'
    }
    const mono = { model_type: 'internvl_chat', llm_config: { architectures: ['InternLM2VEForCausalLM'] } }
    assert.match(messageOf(mono), /model_type internvl_chat is Mono-InternVL/)
    assert.match(messageOf({ model_type: 'interns1_pro' }), /is Intern-S1-Pro/)
    assert.match(messageOf({ model_type: 'interns2_preview' }), /is Intern-S2, which is built on Qwen3\.5/)
    assert.match(messageOf({ architectures: ['InternS2PreviewForConditionalGeneration'] }), /is Intern-S2/)
    assert.match(messageOf({ model_type: 'internvl', qllama_config: {} }), /is InternVL 1\.0/)
    assert.match(messageOf({ model_type: 'sensenova_u1' }), /is SenseNova-U1/)
  })
})
