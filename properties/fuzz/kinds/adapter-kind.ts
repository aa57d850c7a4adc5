import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { load } from '../../../generation/checkpoint/load.js'
import { checkedAnswer } from '../calls.js'
import { type ByteEdit, byteEdits, editBytes, editJson, type JsonEdit, jsonEdits } from '../edits.js'
import { copyWith } from '../fixture.js'
import { editTensors, type TensorEdit, tensorEdits } from '../safetensors-edits.js'
import { fuzzKind } from './fuzz-kind.js'

interface Input {
  readonly config: readonly JsonEdit[]
  readonly tensors: readonly TensorEdit[]
  readonly bytes: readonly ByteEdit[]
  readonly quantize: 'int8' | undefined
}

/** The fields of PEFT's adapter_config.json, for the paths of edits. */
const adapterFields = { peft_type: 'LORA', task_type: 'CAUSAL_LM', base_model_name_or_path: 'x', r: 2, lora_alpha: 4, lora_dropout: 0, bias: 'none', target_modules: ['q_proj', 'down_proj'] } // biome-ignore format: one line
const extra: readonly (readonly [readonly string[], unknown])[] = [
  [['use_rslora'], true],
  [['use_dora'], true],
  [['target_modules'], '(.*)*x'],
  [['target_modules'], '('],
  [['target_modules'], 'all-linear'],
  [['rank_pattern'], { q_proj: 1e9 }],
  [['rank_pattern'], { '(a+)+$': 1 }],
  [['rank_pattern'], { '(': 1 }],
  [['alpha_pattern'], { q_proj: -1 }],
  [['modules_to_save'], ['lm_head']],
  [['modules_to_save'], ['norm']],
  [['layers_to_transform'], [99]],
  [['fan_in_fan_out'], true]
]

/** LoRA adapters: adapter_config.json and adapter_model.safetensors. */
export const adapterKind = fuzzKind<Input>({
  name: 'adapter',
  arbitrary: fc.record({
    config: fc.oneof({ weight: 2, arbitrary: jsonEdits(adapterFields, { extra }) }, { weight: 1, arbitrary: fc.constant([]) }),
    tensors: fc.oneof({ weight: 1, arbitrary: tensorEdits }, { weight: 1, arbitrary: fc.constant([]) }),
    bytes: fc.oneof({ weight: 1, arbitrary: byteEdits(2) }, { weight: 4, arbitrary: fc.constant([]) }),
    quantize: fc.constantFrom(undefined, undefined, 'int8')
  }),
  run: async ({ config, tensors, bytes, quantize }, fixture) => {
    const read = (name: string) => readFileSync(join(fixture.adapter, name))
    const adapter = copyWith(fixture, fixture.adapter, {
      'adapter_config.json': editJson(read('adapter_config.json').toString(), config),
      'adapter_model.safetensors': editBytes(editTensors(read('adapter_model.safetensors'), tensors), bytes)
    })
    const internvl = await load(fixture.single, { adapter, ...(quantize ? { quantize } : {}) })
    try {
      await checkedAnswer(internvl)
      return true
    } finally {
      internvl.dispose()
    }
  }
})
