import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { inspect } from '../../../generation/checkpoint/inspect.js'
import { load } from '../../../generation/checkpoint/load.js'
import { demoConfig, generationConfig, processorConfig } from '../base-files.js'
import { checkedAnswer } from '../calls.js'
import { editJson, type JsonEdit, jsonEdits } from '../edits.js'
import { copyWith } from '../fixture.js'
import { attempt } from '../verdict.js'
import { fuzzKind } from './fuzz-kind.js'

interface Input {
  readonly file: 'config.json' | 'processor_config.json' | 'generation_config.json'
  readonly edits: readonly JsonEdit[]
}

/** Fields that published configurations have, and this one lacks. */
const fields: readonly (readonly [readonly string[], unknown])[] = [
  [['text_config', 'rope_scaling'], { type: 'dynamic', factor: 2 }],
  [['text_config', 'rope_parameters'], { rope_type: 'yarn', rope_theta: 1e4, factor: 4, original_max_position_embeddings: 64 }],
  [['text_config', 'rope_parameters'], { rope_type: 'llama3', rope_theta: 1e4, factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 }],
  [['text_config', 'rope_parameters'], { rope_type: 'longrope', rope_theta: 1e4, short_factor: [1, 1], long_factor: [2, 2], original_max_position_embeddings: 64 }],
  [['text_config', 'model_type'], 'qwen3'],
  [['text_config', 'model_type'], 'qwen3_moe'],
  [['text_config', 'model_type'], 'llama'],
  [['text_config', 'model_type'], 'internlm2'],
  [['text_config', 'model_type'], 'gpt_oss'],
  [['text_config', 'head_dim'], 8],
  [['text_config', 'num_experts'], 4],
  [['text_config', 'num_experts_per_tok'], 8],
  [['text_config', 'sliding_window'], 4],
  [['text_config', 'use_sliding_window'], true],
  [['text_config', 'layer_types'], ['sliding_attention', 'full_attention']],
  [['quantization_config'], { quant_method: 'mxfp4' }],
  [['model_type'], 'internvl_chat'],
  [['llm_config'], demoConfig.text_config],
  [['select_layer'], -2],
  [['force_image_size'], 56],
  [['template'], 'internvl2_5'],
  [['max_dynamic_patch'], 12],
  [['vision_feature_layer'], -9],
  [['vision_config', 'num_channels'], 4],
  [['vision_config', 'drop_path_rate'], 0.1],
  [['quantization_config'], { quant_method: 'awq', bits: 4, version: 'gemm' }],
  [['quantization_config', 'quant_method'], 'gptq'],
  [['quantization_config', 'bits'], 4],
  [['quantization_config', 'version'], 1]
] // biome-ignore format: one line a field

const processorFields: readonly (readonly [readonly string[], unknown])[] = [
  [['image_processor', 'max_patches'], 12],
  [['image_processor', 'min_patches'], 2],
  [['image_processor', 'size'], { shortest_edge: 28 }],
  [['image_processor', 'resample'], 0],
  [['video_processor', 'num_frames'], 4],
  [['video_processor', 'fps'], 1]
]

const generationFields: readonly (readonly [readonly string[], unknown])[] = [
  [['do_sample'], true], [['temperature'], 0.5], [['top_k'], 5], [['top_p'], 0.5], [['min_p'], 0.1], [['num_beams'], 2], [['seed'], 1],
  [['repetition_penalty'], 1.5], [['no_repeat_ngram_size'], 2], [['bad_words_ids'], [[1]]], [['suppress_tokens'], [1, 2]],
  [['num_return_sequences'], 2], [['max_length'], 60], [['forced_eos_token_id'], 422], [['penalty_alpha'], 0.6], [['num_beam_groups'], 2]
] // biome-ignore format: a table

const edits = (file: Input['file'], arbitrary: fc.Arbitrary<readonly JsonEdit[]>): fc.Arbitrary<Input> => fc.record({ file: fc.constant(file), edits: arbitrary }) // biome-ignore format: one line

/** The settings of a folder: config.json, processor_config.json and generation_config.json. */
export const configKind = fuzzKind<Input>({
  name: 'config',
  arbitrary: fc.oneof(
    { weight: 4, arbitrary: edits('config.json', jsonEdits(demoConfig, { extra: fields })) },
    { weight: 2, arbitrary: edits('processor_config.json', jsonEdits(processorConfig, { extra: processorFields })) },
    { weight: 1, arbitrary: edits('generation_config.json', jsonEdits(generationConfig, { extra: generationFields })) }
  ),
  run: async ({ file, edits }, fixture) => {
    const text = readFileSync(join(fixture.single, file), 'utf8')
    const dir = copyWith(fixture, fixture.single, { [file]: editJson(text, edits) })
    await attempt(() => inspect(dir))
    const internvl = await load(dir)
    try {
      await checkedAnswer(internvl)
      return true
    } finally {
      internvl.dispose()
    }
  }
})
