import assert from 'node:assert/strict'
import { getOrThrow } from '../../../lib/error.js'
import { parseAdapterConfig, targetedModules } from '../../../models/lora/adapter-config.js'

const modules = [
  ...[0, 1, 2].flatMap((i) =>
    ['self_attn.q_proj', 'self_attn.v_proj', 'mlp.up_proj'].map((name) => `model.language_model.layers.${i}.${name}`)
  ),
  'lm_head',
  'model.vision_tower.encoder.layer.1.attention.q_proj'
]

/** Fields of adapter_config.json, and the indices of the modules that PEFT 0.21 targets (`check_target_module_exists`). */
const selections = [
  [{ target_modules: ['q_proj', 'v_proj'], exclude_modules: ['layers.1.self_attn.v_proj'] }, [0, 1, 3, 6, 7, 10]],
  [{ target_modules: ['q_proj'], exclude_modules: 'model\\.vision_tower\\..*' }, [0, 3, 6]],
  [{ target_modules: ['q_proj', 'up_proj'], layers_to_transform: [1] }, [3, 5, 10]],
  [{ target_modules: ['q_proj', 'lm_head'], layers_to_transform: 2 }, [6, 9]]
] as const

describe('adapter_config.json', () => {
  it('exclude_modules and layers_to_transform select the modules that PEFT selects', () => {
    for (const [fields, expected] of selections) {
      const config = getOrThrow(parseAdapterConfig('adapter_config.json', JSON.stringify({ peft_type: 'LORA', r: 2, ...fields })))
      const targeted = targetedModules(config, modules).map((module) => modules.indexOf(module))
      assert.deepEqual(targeted, expected, JSON.stringify(fields))
    }
  })
})
