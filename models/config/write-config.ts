import type { Json } from './config-fields.js'
import type { InternVLConfig, Pair, RopeConfig, TextConfig, VisionConfig } from './config-types.js'
import { families } from './decoder-defaults.js'

/** Without the fields that are undefined, for JSON has no such thing. */
const present = (record: Json): Json => Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined))

const one = <A>(values: readonly A[]): A | readonly A[] | null => (values.length > 1 ? values : (values[0] ?? null))

/**
 * Rotary embedding as all versions of Transformers and OpenGVLab's own code read it: `rope_theta` beside `rope_scaling`, whose
 * type stands under both its names.
 */
const ropeJson = (r: RopeConfig, { modelType }: TextConfig): Json => {
  const phi3 = modelType === 'phi3'
  const scaling = present({
    rope_type: r.ropeType,
    type: r.ropeType,
    factor: r.factor,
    original_max_position_embeddings: phi3 ? undefined : r.originalMaxPositionEmbeddings,
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
    ...(phi3
      ? { original_max_position_embeddings: r.originalMaxPositionEmbeddings, partial_rotary_factor: r.partialRotaryFactor }
      : {})
  }
}

/** The family under which a decoder is written: biases that Llama's own configuration cannot say are InternLM3's. */
const familyOf = (c: TextConfig): keyof typeof families =>
  c.modelType === 'llama' && c.outputBias !== c.attentionBias ? 'internlm3' : c.modelType

const biasJson = (c: TextConfig, family: keyof typeof families): Json => {
  if (family === 'internlm2') return { bias: c.attentionBias }
  if (family === 'internlm3')
    return { attention_bias: c.attentionBias, qkv_bias: c.attentionBias, mlp_bias: c.mlpBias, bias: c.mlpBias }
  if (family === 'llama') return { attention_bias: c.attentionBias, mlp_bias: c.mlpBias }
  return family === 'qwen2' || family === 'phi3' ? {} : { attention_bias: c.attentionBias }
}

/** Fields of a mixture of experts; their number stands under both its names. */
const expertsJson = (c: TextConfig): Json =>
  c.modelType === 'qwen3_moe' || c.modelType === 'gpt_oss'
    ? {
        num_experts_per_tok: c.numExpertsPerToken,
        router_aux_loss_coef: c.routerAuxLossCoef,
        output_router_logits: c.outputRouterLogits,
        num_local_experts: c.numExperts,
        ...(c.modelType === 'gpt_oss'
          ? { swiglu_alpha: c.swigluAlpha, swiglu_limit: c.swigluLimit }
          : {
              num_experts: c.numExperts,
              moe_intermediate_size: c.moeIntermediateSize,
              norm_topk_prob: c.normTopkProb,
              decoder_sparse_step: c.decoderSparseStep,
              mlp_only_layers: c.mlpOnlyLayers
            })
      }
    : {}

const slidingJson = (c: TextConfig, family: keyof typeof families): Json => {
  const { layers, mustBeUsed } = families[family].slides
  if (layers === 'none') return {}
  const isListed = layers === 'upper' || layers === 'even'
  return {
    sliding_window: c.slidingWindow ?? null,
    ...(mustBeUsed ? { use_sliding_window: c.slidingWindow !== undefined } : {}),
    ...(isListed ? { layer_types: c.layerTypes } : {})
  }
}

/** A decoder's configuration as JSON, every field told; `family` by default the one whose class says all of it. */
export const textJson = (c: TextConfig, family = familyOf(c)): Json => ({
  architectures: [families[family].architecture],
  model_type: family,
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
  eos_token_id: one(c.eosTokenIds),
  pad_token_id: c.padTokenId ?? null,
  ...biasJson(c, family),
  ...slidingJson(c, family),
  ...expertsJson(c),
  ...ropeJson(c.rope, c)
})

/** Fields of the vision tower that both dialects call the same. */
const commonVision = (c: VisionConfig): Json => ({
  hidden_size: c.hiddenSize,
  intermediate_size: c.intermediateSize,
  num_hidden_layers: c.numHiddenLayers,
  num_attention_heads: c.numAttentionHeads,
  hidden_act: c.hiddenAct,
  attention_dropout: c.attentionDropout,
  projection_dropout: c.projectionDropout,
  initializer_range: c.initializerRange,
  norm_type: c.normType,
  layer_norm_eps: c.layerNormEps,
  num_channels: c.numChannels,
  use_mask_token: c.useMaskToken,
  use_absolute_position_embeddings: c.useAbsolutePositionEmbeddings,
  use_mean_pooling: c.useMeanPooling
})

const side = ([height, width]: Pair): number | Pair => (height === width ? height : [height, width])

const hfVision = (c: VisionConfig): Json => ({
  ...commonVision(c),
  model_type: 'internvl_vision',
  attention_bias: c.attentionBias,
  use_qk_norm: c.useQkNorm,
  hidden_dropout_prob: c.hiddenDropoutProb,
  image_size: c.imageSize,
  patch_size: c.patchSize,
  layer_scale_init_value: c.layerScaleInitValue
})

const originalVision = (c: VisionConfig): Json => ({
  ...commonVision(c),
  architectures: ['InternVisionModel'],
  model_type: 'intern_vit_6b',
  qkv_bias: c.attentionBias,
  qk_normalization: c.useQkNorm,
  dropout: c.hiddenDropoutProb,
  image_size: side(c.imageSize),
  patch_size: side(c.patchSize),
  initializer_factor: c.layerScaleInitValue
})

/** As Transformers writes it. */
export const hfJson = (c: InternVLConfig): Json =>
  present({
    architectures: ['InternVLForConditionalGeneration'],
    model_type: 'internvl',
    downsample_ratio: c.downsampleRatio,
    dtype: c.dtype,
    torch_dtype: c.dtype, // its name until 4.56
    image_seq_length: c.imageSeqLength,
    image_token_id: c.imageTokenId,
    projector_hidden_act: c.projectorHiddenAct,
    ps_version: c.psVersion === 'v1' ? 'v1' : undefined,
    text_config: textJson(c.textConfig),
    tie_word_embeddings: c.tieWordEmbeddings,
    vision_config: hfVision(c.visionConfig),
    vision_feature_layer: c.visionFeatureLayer,
    vision_feature_select_strategy: c.visionFeatureSelectStrategy
  })

/** What OpenGVLab's layout says of pictures and prompts, for want of processor files. */
export const processingJson = ({ original: p, visionConfig: v }: InternVLConfig): Json =>
  present({
    force_image_size: side(p?.imageSize ?? v.imageSize),
    dynamic_image_size: p?.dynamicImageSize ?? true,
    use_thumbnail: p?.useThumbnail ?? true,
    min_dynamic_patch: p?.minDynamicPatch ?? 1,
    max_dynamic_patch: p?.maxDynamicPatch ?? 12,
    pad2square: p?.pad2square ?? false,
    template: p?.template
  })

/** As OpenGVLab writes it, without `processingJson`; a decoder of InternLM2's under its own name. */
export const originalJson = (c: InternVLConfig, isInternLm2: boolean): Json => {
  const text = { ...c.textConfig, tieWordEmbeddings: c.tieWordEmbeddings }
  return present({
    architectures: ['InternVLChatModel'],
    model_type: 'internvl_chat',
    downsample_ratio: c.downsampleRatio,
    ps_version: c.psVersion,
    select_layer: c.visionFeatureLayer,
    torch_dtype: c.dtype,
    tie_word_embeddings: c.tieWordEmbeddings,
    llm_config: textJson(text, isInternLm2 ? 'internlm2' : undefined),
    vision_config: originalVision(c.visionConfig)
  })
}
