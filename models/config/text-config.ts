import {
  activation,
  count,
  either,
  type Fields,
  flag,
  index,
  integer,
  listOf,
  number,
  oneOf,
  orNull,
  positive,
  text
} from './config-fields.js'
import type { DecoderConfig, ExpertsConfig, LayerType, TextConfig } from './config-types.js'
import { type Family, families } from './decoder-defaults.js'
import { ropeConfig } from './rope-config.js'

const layerTypes = ['full_attention', 'sliding_attention'] as const

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

/** The family by `model_type`; where there is none by the class, as OpenGVLab's own code does; by default `qwen2`. */
const familyOf = (f: Fields): Family => {
  const known = Object.entries(families)
  const [type, architecture] = [f.maybe('model_type', text), f.maybe('architectures', listOf(text))?.[0]]
  if (type === undefined && architecture === undefined) return families.qwen2
  const found = known.find(([name, family]) => (type === undefined ? family.architecture === architecture : name === type))
  if (found) return found[1]
  if (type !== undefined) f.note('model_type', `one of ${known.map(([name]) => name).join(', ')}`)
  else f.note('architectures', `one of ${known.map(([, family]) => family.architecture).join(', ')}`)
  return families.qwen2
}

/** A decoder's configuration from the fields of `text_config` (or `llm_config`), by its `model_type`, by default `qwen2`. */
export const textConfig = (f: Fields): TextConfig => {
  const family = familyOf(f)
  const common = decoder(f, family)
  const { modelType } = family
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
