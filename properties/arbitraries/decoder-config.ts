import fc from 'fast-check'
import { getOrThrow } from '../../lib/error.js'
import { parseConfig, type TextConfig } from '../../models/config/parse-config.js'
import { count } from './tensor.js'

export type ModelType = TextConfig['modelType']

const ropes = {
  default: fc.constant({ rope_type: 'default' }),
  linear: fc.constant({ rope_type: 'linear', factor: 2 }),
  dynamic: fc.constant({ rope_type: 'dynamic', factor: 2 }),
  yarn: fc.constant({ rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16, truncate: false }),
  llama3: fc.constant({
    rope_type: 'llama3',
    factor: 4,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 16
  })
}

const anyRope = fc.oneof(...Object.values(ropes))

/** LongRoPE for heads of `2 · half` entries. */
const longrope = (half: number) => ({
  rope_type: 'longrope',
  short_factor: Array.from({ length: half }, (_, i) => 1 + i / 10),
  long_factor: Array.from({ length: half }, (_, i) => 2 + i)
})

const sizes = fc.record({
  groups: count(2),
  share: count(3),
  half: count(3),
  layers: count(3),
  width: count(6),
  bias: fc.boolean()
})

/** Further fields of config.json for each model type, beyond the common sizes. */
const fieldsOf: { readonly [T in ModelType]: (half: number, layers: number) => fc.Arbitrary<object> } = {
  qwen2: () =>
    fc.record({
      rope_parameters: anyRope,
      use_sliding_window: fc.boolean(),
      sliding_window: count(4),
      max_window_layers: fc.nat(2)
    }),
  qwen3: () => fc.record({ rope_parameters: anyRope }),
  llama: () => fc.record({ rope_parameters: anyRope, mlp_bias: fc.boolean() }),
  phi3: (half) =>
    fc.record({
      rope_parameters: fc.constantFrom<object>({ rope_type: 'default' }, longrope(half)),
      original_max_position_embeddings: fc.constantFrom(4, 64),
      sliding_window: fc.option(count(4))
    }),
  qwen3_moe: (_, layers) =>
    fc.record({
      num_experts: fc.integer({ min: 3, max: 5 }),
      num_experts_per_tok: count(3),
      moe_intermediate_size: count(5),
      norm_topk_prob: fc.boolean(),
      decoder_sparse_step: count(2),
      mlp_only_layers: fc.subarray(Array.from({ length: layers }, (_, i) => i))
    }),
  gpt_oss: () =>
    fc.record({
      num_local_experts: fc.integer({ min: 3, max: 5 }),
      num_experts_per_tok: count(3),
      sliding_window: count(4),
      swiglu_limit: fc.constantFrom(0.5, 7)
    })
}

/** Small configurations of one kind of decoder; head sizes are even, everything else may be odd. */
export const decoderConfig = (modelType: ModelType): fc.Arbitrary<TextConfig> =>
  sizes.chain(({ groups, share, half, layers, width, bias }) =>
    fieldsOf[modelType](half, layers).map((more) => {
      const text_config = {
        model_type: modelType,
        vocab_size: 11,
        hidden_size: modelType === 'phi3' ? 2 * half * groups * share : 2 * width,
        intermediate_size: width + 1,
        num_hidden_layers: layers,
        num_attention_heads: groups * share,
        num_key_value_heads: groups,
        head_dim: 2 * half,
        attention_bias: bias,
        max_position_embeddings: 8,
        rope_theta: 100,
        ...more
      }
      return getOrThrow(parseConfig({ model_type: 'internvl', text_config })).textConfig
    })
  )
