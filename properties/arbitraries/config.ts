import fc from 'fast-check'

const heads = fc.record({
  kv: fc.integer({ min: 1, max: 3 }),
  groups: fc.integer({ min: 1, max: 3 }),
  size: fc.constantFrom(2, 4, 6)
})
const size = fc.integer({ min: 1, max: 50 })

const text = fc
  .record({
    heads,
    intermediate: size,
    layers: fc.integer({ min: 1, max: 3 }),
    vocab: size,
    type: fc.constantFrom('qwen2', 'llama', 'qwen3')
  })
  .map(({ heads: { kv, groups, size }, intermediate, layers, vocab, type }) => ({
    model_type: type,
    hidden_size: kv * groups * size,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: kv * groups,
    num_key_value_heads: kv,
    head_dim: size,
    vocab_size: vocab,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-6,
    hidden_act: 'silu',
    bos_token_id: 1,
    eos_token_id: 2,
    pad_token_id: 0
  }))

const rope = fc.constantFrom({ rope_type: 'default' }, { rope_type: 'dynamic', factor: 2 }, { rope_type: 'linear', factor: 4 })

const vision = fc
  .record({
    heads: fc.integer({ min: 1, max: 3 }),
    size: fc.integer({ min: 1, max: 4 }),
    intermediate: size,
    layers: fc.integer({ min: 1, max: 3 }),
    bias: fc.boolean(),
    qkNorm: fc.boolean(),
    norm: fc.constantFrom('layer_norm', 'rms_norm')
  })
  .map((v) => ({
    model_type: 'internvl_vision',
    hidden_size: v.heads * v.size,
    intermediate_size: v.intermediate,
    num_hidden_layers: v.layers,
    num_attention_heads: v.heads,
    attention_bias: v.bias,
    use_qk_norm: v.qkNorm,
    norm_type: v.norm,
    image_size: [56, 56],
    patch_size: 14
  }))

/** A small `config.json` as Transformers saves it. */
export const hfJson = fc
  .record({
    text,
    rope,
    theta: fc.integer({ min: 10, max: 1e6 }),
    vision,
    layer: fc.constantFrom(-1, -2),
    tied: fc.boolean(),
    dtype: fc.constantFrom('float32', 'bfloat16', 'float16'),
    token: fc.nat(600)
  })
  .map(({ text, rope, theta, vision, layer, tied, dtype, token }) => ({
    architectures: ['InternVLForConditionalGeneration'],
    model_type: 'internvl',
    downsample_ratio: 0.5,
    dtype,
    image_seq_length: 4,
    image_token_id: token,
    projector_hidden_act: 'gelu',
    text_config: { ...text, tie_word_embeddings: tied, rope_parameters: { ...rope, rope_theta: theta } },
    tie_word_embeddings: tied,
    vision_config: vision,
    vision_feature_layer: layer,
    vision_feature_select_strategy: 'default'
  }))

type HfJson = typeof hfJson extends fc.Arbitrary<infer A> ? A : never

/** The same model's `config.json` as OpenGVLab writes it. */
export const originalOf = ({ text_config: text, vision_config: vision, ...json }: HfJson) => {
  const { rope_parameters: rope, model_type, ...llm } = text
  const { rope_theta, rope_type, ...scaling } = rope
  const { attention_bias, use_qk_norm, model_type: _, ...vit } = vision
  return {
    architectures: ['InternVLChatModel'],
    model_type: 'internvl_chat',
    downsample_ratio: json.downsample_ratio,
    force_image_size: 56,
    ps_version: 'v2',
    select_layer: json.vision_feature_layer,
    template: 'internvl2_5',
    torch_dtype: json.dtype,
    llm_config: {
      ...llm,
      model_type,
      rope_theta,
      rope_scaling: rope_type === 'default' ? null : { type: rope_type, ...scaling }
    },
    vision_config: { ...vit, image_size: 56, qkv_bias: attention_bias, qk_normalization: use_qk_norm }
  }
}

/** A small `config.json` as OpenGVLab writes it. */
export const originalJson = hfJson.map(originalOf)
