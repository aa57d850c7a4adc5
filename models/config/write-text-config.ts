import { withoutUndefined } from '../../lib/plain-object.js'
import type { DecoderFamily } from '../decoders/decoder-family.js'
import { decoderFamilyOf, findDecoder, type TextConfig } from '../decoders/index.js'
import type { Json } from './config-fields.js'
import type { DecoderConfig, RopeConfig } from './config-types.js'

const oneOrList = <A>(values: readonly A[]): A | readonly A[] | null => (values.length > 1 ? values : (values[0] ?? null))

/**
 * Rotary embedding as all versions of Transformers and OpenGVLab's code read it: `rope_theta` beside `rope_scaling`, which has the
 * type under both its names.
 */
const ropeJson = (r: RopeConfig, isPartial: boolean): Json => {
  const scaling = withoutUndefined({
    rope_type: r.ropeType,
    type: r.ropeType,
    factor: r.factor,
    original_max_position_embeddings: isPartial ? undefined : r.originalMaxPositionEmbeddings,
    attention_factor: r.attentionFactor,
    beta_fast: r.betaFast,
    beta_slow: r.betaSlow,
    mscale: r.mscale,
    mscale_all_dim: r.mscaleAllDim,
    truncate: r.truncate,
    low_freq_factor: r.lowFreqFactor,
    high_freq_factor: r.highFreqFactor,
    short_factor: r.shortFactor,
    long_factor: r.longFactor
  })
  return {
    rope_theta: r.ropeTheta,
    rope_scaling: r.ropeType === 'default' ? null : scaling,
    ...(isPartial
      ? { original_max_position_embeddings: r.originalMaxPositionEmbeddings, partial_rotary_factor: r.partialRotaryFactor }
      : {})
  }
}

const slidingJson = (c: DecoderConfig, { slidingWindow: { layers, isOptional } }: DecoderFamily): Json => {
  if (layers === 'none') return {}
  const isListed = layers === 'upper' || layers === 'even'
  return {
    sliding_window: c.slidingWindow ?? null,
    ...(isOptional ? { use_sliding_window: c.slidingWindow !== undefined } : {}),
    ...(isListed ? { layer_types: c.layerTypes } : {})
  }
}

/** The configuration of a decoder as JSON with every field; `modelType` is by default the first that can say all of it. */
export const textJson = (c: TextConfig, modelType?: string): Json => {
  const family = findDecoder((decoder) => decoder.modelType === modelType) ?? decoderFamilyOf(c)
  return {
    architectures: [family.architecture],
    model_type: family.modelType,
    vocab_size: c.vocabSize,
    hidden_size: c.hiddenSize,
    intermediate_size: c.intermediateSize,
    num_hidden_layers: c.numHiddenLayers,
    num_attention_heads: c.numAttentionHeads,
    num_key_value_heads: c.numKeyValueHeads,
    head_dim: c.headDim,
    hidden_act: c.hiddenAct,
    max_position_embeddings: c.maxPositionEmbeddings,
    rms_norm_eps: c.rmsNormEps,
    initializer_range: c.initializerRange,
    attention_dropout: c.attentionDropout,
    tie_word_embeddings: c.tieWordEmbeddings,
    bos_token_id: c.bosTokenId ?? null,
    eos_token_id: oneOrList(c.eosTokenIds),
    pad_token_id: c.padTokenId ?? null,
    ...family.biasJson(c),
    ...slidingJson(c, family),
    ...family.ownJson?.(c),
    ...ropeJson(c.rope, family.rope?.isPartial ?? false)
  }
}
