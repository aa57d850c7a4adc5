import type { DecoderFamily } from '../decoders/decoder-family.js'
import { decoders, findDecoder, type TextConfig } from '../decoders/index.js'
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
import type { DecoderConfig, LayerType } from './config-types.js'
import { ropeConfig } from './rope-config.js'

const layerTypes = ['full_attention', 'sliding_attention'] as const

/** The window and the attention type of each layer. Source: `__post_init__` of each configuration class (transformers 5.24). */
const sliding = (
  f: Fields,
  { slidingWindow }: DecoderFamily,
  layers: number
): Pick<DecoderConfig, 'slidingWindow' | 'layerTypes'> => {
  const { layers: which, window: defaultWindow, isOptional } = slidingWindow
  const isUsed = which !== 'none' && (!isOptional || f('use_sliding_window', flag, false))
  const window = isUsed ? (f('sliding_window', orNull(count), defaultWindow ?? null) ?? undefined) : undefined
  const first = { none: layers, all: 0, even: 0, upper: f('max_window_layers', index, 28) }[which]
  const derived = Array.from({ length: layers }, (_, i): LayerType => {
    const isSliding = window !== undefined && i >= first && (which !== 'even' || i % 2 === 0)
    return isSliding ? 'sliding_attention' : 'full_attention'
  })
  const isListed = which === 'upper' || which === 'even'
  const given = isListed ? f.maybe('layer_types', listOf(oneOf(layerTypes))) : undefined
  if (given && given.length !== layers) f.note('layer_types', `a list of ${layers}, one for each layer`)
  return { slidingWindow: window, layerTypes: given ?? derived }
}

const sizes = (f: Fields, { defaults }: DecoderFamily) => {
  const numAttentionHeads = f('num_attention_heads', count, defaults.numAttentionHeads)
  const hiddenSize = f('hidden_size', count, defaults.hiddenSize)
  const numKeyValueHeads = f('num_key_value_heads', orNull(count), defaults.numKeyValueHeads ?? null) ?? numAttentionHeads
  if (numAttentionHeads % numKeyValueHeads !== 0)
    f.note('num_attention_heads', `a multiple of num_key_value_heads, ${numKeyValueHeads}`)
  const headDim = f('head_dim', orNull(count), defaults.headDim ?? null) ?? Math.floor(hiddenSize / numAttentionHeads)
  if (headDim < 1) f.note('hidden_size', `at least num_attention_heads, ${numAttentionHeads}`)
  return {
    hiddenSize,
    intermediateSize: f('intermediate_size', count, defaults.intermediateSize),
    numHiddenLayers: f('num_hidden_layers', count, defaults.numHiddenLayers),
    numAttentionHeads,
    numKeyValueHeads,
    headDim
  }
}

/** The fields that all decoders have. */
const commonConfig = (f: Fields, family: DecoderFamily): DecoderConfig => {
  const { defaults } = family
  const shape = sizes(f, family)
  const maxPositionEmbeddings = f('max_position_embeddings', count, defaults.maxPositionEmbeddings)
  const id = (key: string, fallback: number | undefined) => f(key, orNull(integer), fallback ?? null) ?? undefined
  const eos = f('eos_token_id', orNull(either(integer, listOf(integer))), defaults.eosTokenId ?? null)
  return {
    modelType: family.configType,
    ...shape,
    ...sliding(f, family, shape.numHiddenLayers),
    vocabSize: f('vocab_size', count, defaults.vocabSize),
    hiddenAct: f('hidden_act', activation, 'silu'),
    maxPositionEmbeddings,
    rmsNormEps: f('rms_norm_eps', positive, defaults.rmsNormEps),
    initializerRange: f('initializer_range', number, 0.02),
    attentionDropout: f('attention_dropout', orNull(number), 0) ?? 0,
    ...family.biases(f),
    tieWordEmbeddings: f('tie_word_embeddings', flag, false),
    rope: ropeConfig(f, family, maxPositionEmbeddings, shape.headDim),
    bosTokenId: id('bos_token_id', defaults.bosTokenId),
    eosTokenIds: typeof eos === 'number' ? [eos] : (eos ?? []),
    padTokenId: id('pad_token_id', defaults.padTokenId)
  }
}

/** The decoder by `model_type`, else by `architectures`, as OpenGVLab's code finds it, else the default. */
const familyOf = (f: Fields): DecoderFamily => {
  const [type, architecture] = [f.maybe('model_type', text), f.maybe('architectures', listOf(text))?.[0]]
  if (type === undefined && architecture === undefined) return decoders[0]
  const found = findDecoder((family) => (type === undefined ? family.architecture === architecture : family.modelType === type))
  if (found) return found
  if (type !== undefined) f.note('model_type', `one of ${decoders.map(({ modelType }) => modelType).join(', ')}`)
  else f.note('architectures', `one of ${decoders.map((family) => family.architecture).join(', ')}`)
  return decoders[0]
}

/** Parses `text_config` (`llm_config` in OpenGVLab's dialect). */
export const textConfig = (f: Fields): TextConfig => {
  const family = familyOf(f)
  const common = commonConfig(f, family)
  return { ...common, ...family.ownConfig?.(f, common) } as TextConfig
}
