import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid } from '../../lib/error.js'
import type { Json } from '../config/config-fields.js'
import type { GgufFile, GgufValue } from './gguf-file.js'
import { architectureOf } from './gguf-keys.js'
import { readWeights } from './gguf-weights.js'

/** Architectures of GGUF that are read, and the decoders that they are. */
const decoders: Readonly<Record<string, string>> = {
  qwen2: 'qwen2',
  qwen3: 'qwen3',
  qwen3moe: 'qwen3_moe',
  llama: 'llama',
  internlm2: 'llama',
  phi3: 'phi3',
  'gpt-oss': 'gpt_oss'
}

/** The metadata under a prefix, by the rest of the key. */
const under =
  ({ metadata }: GgufFile, prefix: string) =>
  (key: string): GgufValue | undefined =>
    metadata.get(`${prefix}.${key}`)

const first = (value: GgufValue | undefined): GgufValue | undefined => (Array.isArray(value) ? value[0] : value)

/** Factors of the rotary frequencies of Phi-3, which are tensors of the file. */
export interface RopeFactors {
  readonly short: readonly number[]
  readonly long: readonly number[]
}

/** The factors in a file; undefined in most. */
export const readRopeFactors = async (file: GgufFile): Promise<RopeFactors | undefined> => {
  const read = async (name: string) => {
    const tensor = file.tensors.get(`rope_factors_${name}.weight`)
    return tensor && Array.from(await readWeights(file, tensor, 0, tensor.shape[0]!))
  }
  const [short, long] = [await read('short'), await read('long')]
  return short && long ? { short, long } : undefined
}

/** `rope_scaling` of a decoder; GGUF keeps the factor of linear and yarn scaling. */
const ropeScaling = (
  at: (key: string) => GgufValue | undefined,
  factors: RopeFactors | undefined,
  isGptOss: boolean
): Json | null => {
  if (factors) return { rope_type: 'longrope', short_factor: factors.short, long_factor: factors.long }
  const type = at('rope.scaling.type')
  if (type !== 'linear' && type !== 'yarn') return null
  const original = at('rope.scaling.original_context_length')
  return {
    rope_type: type,
    factor: at('rope.scaling.factor') ?? 1,
    ...(original === undefined ? {} : { original_max_position_embeddings: original }),
    ...(isGptOss ? { beta_fast: 32, beta_slow: 1, truncate: false } : {}) // as published, and as llama.cpp computes
  }
}

/** Fields that only one kind of decoder has. Source: the `set_gguf_parameters` of llama.cpp's converter. */
const ownFields = (at: (key: string) => GgufValue | undefined, architecture: string): Json => {
  const [experts, used] = [at('expert_count'), at('expert_used_count')]
  if (architecture === 'gpt-oss')
    return {
      ...{ num_local_experts: experts, num_experts_per_tok: used, sliding_window: at('attention.sliding_window') },
      intermediate_size: at('expert_feed_forward_length')
    }
  if (architecture === 'qwen3moe')
    return {
      ...{ num_experts: experts, num_experts_per_tok: used, moe_intermediate_size: at('expert_feed_forward_length') },
      ...{ norm_topk_prob: true, decoder_sparse_step: 1, mlp_only_layers: [] }
    }
  if (architecture !== 'phi3') return {}
  const [rotated, original, window] = [
    at('rope.dimension_count'),
    at('rope.scaling.original_context_length'),
    at('attention.sliding_window')
  ]
  const head = Number(at('embedding_length')) / Number(first(at('attention.head_count')))
  return {
    sliding_window: window ?? null,
    partial_rotary_factor: rotated === undefined ? 1 : Number(rotated) / head,
    ...(original === undefined ? {} : { original_max_position_embeddings: original })
  }
}

const textConfig = (model: GgufFile, architecture: string, factors: RopeFactors | undefined): Json => {
  const at = under(model, architecture)
  const [heads, hidden] = [first(at('attention.head_count')), at('embedding_length')]
  const hasBias = model.tensors.has('blk.0.attn_q.bias')
  return {
    model_type: decoders[architecture],
    vocab_size: model.tensors.get('token_embd.weight')?.shape[0],
    hidden_size: hidden,
    intermediate_size: first(at('feed_forward_length')),
    num_hidden_layers: at('block_count'),
    num_attention_heads: heads,
    num_key_value_heads: first(at('attention.head_count_kv')) ?? heads,
    head_dim: at('attention.key_length') ?? Number(hidden) / Number(heads),
    max_position_embeddings: at('context_length'),
    rms_norm_eps: at('attention.layer_norm_rms_epsilon'),
    rope_theta: at('rope.freq_base') ?? 10000,
    rope_scaling: ropeScaling(at, factors, architecture === 'gpt-oss'),
    hidden_act: 'silu',
    ...(architecture === 'qwen2' || architecture === 'phi3' ? {} : { attention_bias: hasBias }),
    tie_word_embeddings: !model.tensors.has('output.weight'),
    ...ownFields(at, architecture)
  }
}

const visionConfig = (mmproj: GgufFile): Json => {
  const at = under(mmproj, 'clip.vision')
  const has = (name: string) => mmproj.tensors.has(`v.blk.0.${name}`)
  return {
    model_type: 'internvl_vision',
    hidden_size: at('embedding_length'),
    intermediate_size: at('feed_forward_length'),
    num_hidden_layers: at('block_count'),
    num_attention_heads: at('attention.head_count'),
    layer_norm_eps: at('attention.layer_norm_epsilon'),
    image_size: [at('image_size'), at('image_size')],
    patch_size: [at('patch_size'), at('patch_size')],
    hidden_act: mmproj.metadata.get('clip.use_silu') === true ? 'silu' : 'gelu',
    attention_bias: has('attn_q.bias') || has('attn_qkv.bias'),
    use_qk_norm: has('attn_q_norm.weight'),
    norm_type: has('ln1.bias') ? 'layer_norm' : 'rms_norm',
    use_mean_pooling: true
  }
}

/** The error of a GGUF file of another kind. */
const refuse = ({ path }: GgufFile, why: string) => invalid('Gguf', `${path}: ${why}`, { file: path })

/**
 * `text_config` of a decoder in a GGUF file, as JSON. Errors: a file of another architecture; `clip` is that of vision towers.
 */
export const ggufTextConfig = async (model: GgufFile): Promise<E.Either<Issues, Json>> => {
  const architecture = architectureOf(model)
  if (architecture === 'clip') return refuse(model, 'it holds a vision tower, not a language model')
  if (!Object.hasOwn(decoders, architecture))
    return refuse(model, `its architecture is ${architecture}; read are ${Object.keys(decoders).join(', ')}`)
  return E.right(textConfig(model, architecture, await readRopeFactors(model)))
}

/**
 * config.json, in Transformers' dialect, of a decoder and a vision tower with projector in GGUF files.
 * Errors: files of other models, and the two files in the wrong order. Source: `convert_hf_to_gguf.py` of llama.cpp.
 */
export const ggufConfig = (
  model: GgufFile,
  mmproj: GgufFile,
  imageTokenId: number | undefined,
  factors?: RopeFactors
): E.Either<Issues, Json> => {
  const architecture = architectureOf(model)
  if (architecture === 'clip') return refuse(model, 'it holds a vision tower, not a language model; give it as --mmproj')
  if (!Object.hasOwn(decoders, architecture))
    return refuse(model, `its architecture is ${architecture}; read are ${Object.keys(decoders).join(', ')}`)
  const projector = mmproj.metadata.get('clip.projector_type') ?? mmproj.metadata.get('clip.vision.projector_type')
  if (projector !== 'internvl')
    return refuse(mmproj, `its projector type is ${projector ?? 'none'}, not internvl; give the mmproj file of the same model`)
  if (imageTokenId === undefined)
    return refuse(model, 'its vocabulary has no <IMG_CONTEXT>; is this the language model of an InternVL?')
  const [vision, scale] = [visionConfig(mmproj), Number(mmproj.metadata.get('clip.vision.projector.scale_factor') ?? 2)]
  const text = textConfig(model, architecture, factors)
  const [[side], [patch]] = [vision.image_size as readonly [number], vision.patch_size as readonly [number]]
  return E.right({
    architectures: ['InternVLForConditionalGeneration'],
    model_type: 'internvl',
    dtype: 'float32',
    downsample_ratio: 1 / scale,
    image_seq_length: Math.floor((Math.floor(side / patch) / scale) ** 2),
    image_token_id: imageTokenId,
    projector_hidden_act: 'gelu',
    tie_word_embeddings: text.tie_word_embeddings,
    text_config: text,
    vision_config: vision,
    vision_feature_layer: -1,
    vision_feature_select_strategy: 'default'
  })
}
