import type { Activation } from '../lib/nn/activation.js'
import {
  count,
  either,
  type Fields,
  flag,
  index,
  integer,
  type Json,
  listOf,
  number,
  oneOf,
  orNull,
  positive,
  text
} from './config-fields.js'

/** Rotary position embedding of a decoder. Fields that a `ropeType` does not use are undefined. */
export interface RopeConfig {
  readonly ropeType: (typeof ropeTypes)[number]
  readonly ropeTheta: number
  /** Share of the head that is rotated. */
  readonly partialRotaryFactor: number
  readonly factor: number | undefined
  readonly originalMaxPositionEmbeddings: number | undefined
  readonly attentionFactor: number | undefined
  readonly betaFast: number | undefined
  readonly betaSlow: number | undefined
  readonly mscale: number | undefined
  readonly mscaleAllDim: number | undefined
  readonly truncate: boolean | undefined
  readonly lowFreqFactor: number | undefined
  readonly highFreqFactor: number | undefined
  readonly shortFactor: readonly number[] | undefined
  readonly longFactor: readonly number[] | undefined
}

export type LayerType = 'full_attention' | 'sliding_attention'

/** What every decoder has. */
export interface DecoderConfig {
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly hiddenAct: Activation
  readonly maxPositionEmbeddings: number
  readonly rmsNormEps: number
  readonly initializerRange: number
  readonly attentionDropout: number
  /** Biases of `q_proj`, `k_proj`, `v_proj`; of `o_proj`; of the feed-forward. */
  readonly attentionBias: boolean
  readonly outputBias: boolean
  readonly mlpBias: boolean
  /** The text configuration's own; the head is tied by `InternVLConfig.tieWordEmbeddings`. */
  readonly tieWordEmbeddings: boolean
  /** Positions that a `sliding_attention` layer sees, itself included. */
  readonly slidingWindow: number | undefined
  /** One for each layer. */
  readonly layerTypes: readonly LayerType[]
  readonly rope: RopeConfig
  readonly bosTokenId: number | undefined
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | undefined
}

/** What a mixture of experts adds. */
interface ExpertsConfig {
  readonly numExperts: number
  readonly numExpertsPerToken: number
  readonly routerAuxLossCoef: number
  readonly outputRouterLogits: boolean
}

export interface Qwen2Config extends DecoderConfig {
  readonly modelType: 'qwen2'
}
export interface Qwen3Config extends DecoderConfig {
  readonly modelType: 'qwen3'
}
export interface LlamaConfig extends DecoderConfig {
  readonly modelType: 'llama'
}
export interface Phi3Config extends DecoderConfig {
  readonly modelType: 'phi3'
}
export interface Qwen3MoeConfig extends DecoderConfig, ExpertsConfig {
  readonly modelType: 'qwen3_moe'
  readonly moeIntermediateSize: number
  readonly normTopkProb: boolean
  /** Every how many layers are experts; `mlpOnlyLayers` never are. */
  readonly decoderSparseStep: number
  readonly mlpOnlyLayers: readonly number[]
}
export interface GptOssConfig extends DecoderConfig, ExpertsConfig {
  readonly modelType: 'gpt_oss'
  readonly swigluAlpha: number
  readonly swigluLimit: number
}

/** A decoder's configuration, told apart by `modelType`. */
export type TextConfig = Qwen2Config | Qwen3Config | LlamaConfig | Phi3Config | Qwen3MoeConfig | GptOssConfig

const ropeTypes = ['default', 'linear', 'dynamic', 'yarn', 'longrope', 'llama3'] as const
const layerTypes = ['full_attention', 'sliding_attention'] as const

/** Names in `hidden_act` that the library computes. */
export const activation = oneOf(
  Object.keys({ gelu: 0, gelu_new: 0, gelu_pytorch_tanh: 0, quick_gelu: 0, silu: 0, swish: 0, relu: 0 } satisfies Record<
    Activation,
    0
  >) as Activation[]
)

/** What a rope type cannot do without. Source: `RotaryEmbeddingConfigMixin._validate_*` (transformers 5.23). */
const needs: Readonly<Record<RopeConfig['ropeType'], readonly string[]>> = {
  default: [],
  linear: ['factor'],
  dynamic: ['factor'],
  yarn: ['factor'],
  longrope: ['short_factor', 'long_factor'],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor']
}

/**
 * `rope_parameters` (5.x), or `rope_theta` beside `rope_scaling` (before), which wins where both are there.
 * Source: `convert_rope_params_to_dict`, `standardize_rope_params` (transformers 5.23).
 */
const ropeConfig = (f: Fields, family: Family, maxPositions: number, headDim: number): RopeConfig => {
  const scaling = f.inside('rope_scaling')
  const r = scaling.isEmpty ? f.inside('rope_parameters', family.rope) : scaling
  const isPhi3 = family.modelType === 'phi3'
  const named = r('rope_type|type', oneOf(isPhi3 ? ([...ropeTypes, 'su'] as const) : ropeTypes), 'default')
  // Phi-3 was published with `su` and `yarn` for what is now `longrope`
  const ropeType = isPhi3 && named === 'yarn' ? 'longrope' : named === 'su' ? 'longrope' : named
  for (const key of needs[ropeType]) if (!r.has(key)) r.note(key, `there, as rope type ${named} needs it`)
  const isScaled = ropeType === 'yarn' || ropeType === 'longrope' || ropeType === 'llama3'
  const partialRotaryFactor = r.maybe('partial_rotary_factor', positive) ?? f.maybe('partial_rotary_factor', positive) ?? 1
  const factors = (key: string) => {
    const values = r.maybe(key, listOf(positive))
    const expected = Math.floor(Math.floor(headDim * partialRotaryFactor) / 2)
    if (values && values.length !== expected) r.note(key, `${expected} numbers, one for each pair of a head`)
    return values
  }
  return {
    ropeType,
    ropeTheta: r('rope_theta', positive, f('rope_theta', positive, family.ropeTheta)),
    partialRotaryFactor,
    factor: r.maybe('factor', positive),
    originalMaxPositionEmbeddings:
      f.maybe('original_max_position_embeddings', count) ??
      family.originalMaxPositions ??
      r.maybe('original_max_position_embeddings', count) ??
      (isScaled ? maxPositions : undefined),
    attentionFactor: r.maybe('attention_factor', number),
    betaFast: r.maybe('beta_fast', number),
    betaSlow: r.maybe('beta_slow', number),
    mscale: r.maybe('mscale', number),
    mscaleAllDim: r.maybe('mscale_all_dim', number),
    truncate: r.maybe('truncate', flag),
    lowFreqFactor: r.maybe('low_freq_factor', number),
    highFreqFactor: r.maybe('high_freq_factor', number),
    shortFactor: factors('short_factor'),
    longFactor: factors('long_factor')
  }
}

type ModelType = TextConfig['modelType']

/** A decoder family as a configuration names it: what it is, and the defaults of its configuration class. */
interface Family {
  readonly modelType: ModelType
  readonly vocabSize: number
  /** `[hidden, intermediate, layers, heads, key-value heads, head]`; null: as many as heads; null: hidden / heads. */
  readonly sizes: readonly [number, number, number, number, number | null, number | null]
  readonly maxPositions: number
  readonly eps: number
  readonly ropeTheta: number
  readonly rope?: Json
  readonly originalMaxPositions?: number
  readonly ids: readonly [bos: number | null, eos: number | null, pad: number | null]
  /** `[q k v, o, feed-forward]`. */
  readonly biases: (f: Fields) => readonly [boolean, boolean, boolean]
  readonly slides: SlidingRule
}

/** The default window, whether `use_sliding_window` must allow it, and which layers slide. */
interface SlidingRule {
  readonly window: number | null
  readonly mustBeUsed: boolean
  readonly layers: 'none' | 'all' | 'even' | 'upper'
}

const attentionBias = (f: Fields, fallback: boolean) => f('attention_bias', flag, fallback)
const noIds = [null, null, null] as const
const yarn32 = {
  rope_type: 'yarn',
  factor: 32,
  beta_fast: 32,
  beta_slow: 1,
  truncate: false,
  original_max_position_embeddings: 4096
}

const qwen2: Family = {
  modelType: 'qwen2',
  vocabSize: 151936,
  sizes: [4096, 22016, 32, 32, 32, null],
  maxPositions: 32768,
  eps: 1e-6,
  ropeTheta: 10000,
  ids: noIds,
  biases: () => [true, false, false],
  slides: { window: 4096, mustBeUsed: true, layers: 'upper' }
}
const qwen3: Family = {
  ...qwen2,
  modelType: 'qwen3',
  sizes: [4096, 22016, 32, 32, 32, 128],
  biases: (f) => [attentionBias(f, false), attentionBias(f, false), false]
}
const llama: Family = {
  ...qwen2,
  modelType: 'llama',
  vocabSize: 32000,
  sizes: [4096, 11008, 32, 32, null, null],
  maxPositions: 2048,
  ids: [1, 2, null],
  biases: (f) => [attentionBias(f, false), attentionBias(f, false), f('mlp_bias', flag, false)],
  slides: { window: null, mustBeUsed: false, layers: 'none' }
}
/** `model_type` of a text configuration. Defaults: the configuration classes of transformers 5.23, and of InternLM's own code. */
const families: Readonly<Record<string, Family>> = {
  qwen2,
  qwen3,
  qwen3_moe: {
    ...qwen3,
    modelType: 'qwen3_moe',
    sizes: [2048, 6144, 24, 32, 4, null],
    slides: { ...qwen2.slides, layers: 'all' }
  },
  llama,
  phi3: {
    ...llama,
    modelType: 'phi3',
    vocabSize: 32064,
    sizes: [3072, 8192, 32, 32, null, null],
    maxPositions: 4096,
    eps: 1e-5,
    originalMaxPositions: 4096,
    ids: [1, 32000, 32000],
    biases: () => [false, false, false],
    slides: { window: null, mustBeUsed: false, layers: 'all' }
  },
  gpt_oss: {
    ...qwen3,
    modelType: 'gpt_oss',
    vocabSize: 201088,
    sizes: [2880, 2880, 36, 64, 8, 64],
    maxPositions: 131072,
    eps: 1e-5,
    ropeTheta: 150000,
    rope: yarn32,
    biases: (f) => [attentionBias(f, true), attentionBias(f, true), true],
    slides: { window: 128, mustBeUsed: false, layers: 'even' }
  },
  internlm2: {
    ...llama,
    vocabSize: 103168,
    ids: [1, 2, 0],
    biases: (f) => [f('bias', flag, true), f('bias', flag, true), false]
  },
  internlm3: {
    ...llama,
    vocabSize: 128512,
    maxPositions: 32768,
    ids: [1, 2, null],
    biases: (f) => [f('qkv_bias', flag, false), f('bias', flag, false), f('bias', flag, false)]
  }
}

/** Which layers slide, and how far. Source: `__post_init__` of each configuration class (transformers 5.23). */
const sliding = (f: Fields, { slides }: Family, layers: number): Pick<DecoderConfig, 'slidingWindow' | 'layerTypes'> => {
  const isUsed = slides.layers !== 'none' && (!slides.mustBeUsed || f('use_sliding_window', flag, false))
  const window = isUsed ? (f('sliding_window', orNull(count), slides.window) ?? undefined) : undefined
  const from = { none: layers, all: 0, even: 0, upper: f('max_window_layers', index, 28) }[slides.layers]
  const derived = Array.from({ length: layers }, (_, i): LayerType => {
    const isSliding = window !== undefined && i >= from && (slides.layers !== 'even' || i % 2 === 0)
    return isSliding ? 'sliding_attention' : 'full_attention'
  })
  const isListed = slides.layers === 'upper' || slides.layers === 'even'
  const given = isListed ? f.maybe('layer_types', listOf(oneOf(layerTypes))) : undefined
  if (given && given.length !== layers) f.note('layer_types', `a list of ${layers}, one for each layer`)
  return { slidingWindow: window, layerTypes: given ?? derived }
}

const sizes = (f: Fields, { sizes }: Family) => {
  const numAttentionHeads = f('num_attention_heads', count, sizes[3])
  const hiddenSize = f('hidden_size', count, sizes[0])
  const numKeyValueHeads = f('num_key_value_heads', orNull(count), sizes[4]) ?? numAttentionHeads
  if (numAttentionHeads % numKeyValueHeads !== 0)
    f.note('num_attention_heads', `a multiple of num_key_value_heads, ${numKeyValueHeads}`)
  return {
    hiddenSize,
    intermediateSize: f('intermediate_size', count, sizes[1]),
    numHiddenLayers: f('num_hidden_layers', count, sizes[2]),
    numAttentionHeads,
    numKeyValueHeads,
    headDim: f('head_dim', orNull(count), sizes[5]) ?? Math.floor(hiddenSize / numAttentionHeads)
  }
}

const decoder = (f: Fields, family: Family): DecoderConfig => {
  const shape = sizes(f, family)
  const maxPositionEmbeddings = f('max_position_embeddings', count, family.maxPositions)
  const [attentionBias, outputBias, mlpBias] = family.biases(f)
  const id = (key: string, i: 0 | 2) => f(key, orNull(integer), family.ids[i]) ?? undefined
  const eos = f('eos_token_id', orNull(either(integer, listOf(integer))), family.ids[1])
  return {
    ...shape,
    ...sliding(f, family, shape.numHiddenLayers),
    vocabSize: f('vocab_size', count, family.vocabSize),
    hiddenAct: f('hidden_act', activation, 'silu'),
    maxPositionEmbeddings,
    rmsNormEps: f('rms_norm_eps', positive, family.eps),
    initializerRange: f('initializer_range', number, 0.02),
    attentionDropout: f('attention_dropout', orNull(number), 0) ?? 0,
    attentionBias,
    outputBias,
    mlpBias,
    tieWordEmbeddings: f('tie_word_embeddings', flag, false),
    rope: ropeConfig(f, family, maxPositionEmbeddings, shape.headDim),
    bosTokenId: id('bos_token_id', 0),
    eosTokenIds: typeof eos === 'number' ? [eos] : (eos ?? []),
    padTokenId: id('pad_token_id', 2)
  }
}

const experts = (f: Fields, numExpertsPerToken: number): ExpertsConfig => ({
  numExperts: f('num_local_experts|num_experts', count, 128),
  numExpertsPerToken: f('num_experts_per_tok', count, numExpertsPerToken),
  routerAuxLossCoef: f('router_aux_loss_coef', number, 0.001),
  outputRouterLogits: f('output_router_logits', flag, false)
})

/** `model_type`, or, in the first layout, the decoder's class: `Qwen2ForCausalLM`. */
const byArchitecture = (f: Fields): string | undefined =>
  Object.keys(families).find(
    (name) => `${name.replaceAll('_', '')}forcausallm` === f.maybe('architectures', listOf(text))?.[0]?.toLowerCase()
  )

/** A decoder's configuration from the fields of `text_config` (or `llm_config`), by its `model_type`, by default `qwen2`. */
export const textConfig = (f: Fields): TextConfig => {
  const name = f.maybe('model_type', text) ?? byArchitecture(f) ?? 'qwen2'
  const family = families[name]
  if (!family) f.note('model_type', `one of ${Object.keys(families).join(', ')}`)
  const common = decoder(f, family ?? qwen2)
  const modelType = family?.modelType ?? 'qwen2'
  if (modelType === 'gpt_oss') {
    const [swigluAlpha, swigluLimit] = [f('swiglu_alpha', number, 1.702), f('swiglu_limit', number, 7)]
    return { ...common, ...experts(f, 4), modelType, swigluAlpha, swigluLimit }
  }
  if (modelType !== 'qwen3_moe') return { ...common, modelType }
  return {
    ...common,
    ...experts(f, 8),
    modelType,
    moeIntermediateSize: f('moe_intermediate_size', count, 768),
    normTopkProb: f('norm_topk_prob', flag, false),
    decoderSparseStep: f('decoder_sparse_step', count, 1),
    mlpOnlyLayers: f.maybe('mlp_only_layers', listOf(index)) ?? []
  }
}
