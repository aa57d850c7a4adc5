import { visionFamilyOf } from '../internvl/vision-towers.js'
import { activation, count, type Fields, flag, type Json, number, oneOf, positive, sides, text, toPair } from './config-fields.js'
import type { Pair, VisionConfig } from './config-types.js'

type Defaults = Pick<
  VisionConfig,
  'hiddenSize' | 'intermediateSize' | 'numHiddenLayers' | 'numAttentionHeads' | 'useQkNorm' | 'normType'
> & { readonly imageSize: number }

/** Source: `InternVLVisionConfig` (transformers 5.24). */
export const hfVisionDefaults: Defaults = {
  hiddenSize: 1024,
  intermediateSize: 4096,
  numHiddenLayers: 24,
  numAttentionHeads: 16,
  useQkNorm: false,
  normType: 'layer_norm',
  imageSize: 448
}

/** Source: `InternVisionConfig` (OpenGVLab/InternVL). */
export const originalVisionDefaults: Defaults = {
  hiddenSize: 3200,
  intermediateSize: 12800,
  numHiddenLayers: 48,
  numAttentionHeads: 25,
  useQkNorm: true,
  normType: 'rms_norm',
  imageSize: 224
}

const checkSizes = (f: Fields, { hiddenSize, numAttentionHeads, imageSize, patchSize }: VisionConfig): void => {
  if (hiddenSize % numAttentionHeads !== 0) f.note('hidden_size', `a multiple of num_attention_heads, ${numAttentionHeads}`)
  if (patchSize.some((side, i) => side > imageSize[i]!)) f.note('patch_size', `at most image_size, ${imageSize.join(' x ')}`)
}

/** Parses `vision_config`, whose fields have other names and defaults in OpenGVLab's dialect. */
export const visionConfig = (f: Fields, d: Defaults): VisionConfig => {
  const family = visionFamilyOf(f.maybe('model_type', text))
  const common: VisionConfig = {
    modelType: family.modelType,
    hiddenSize: f('hidden_size', count, d.hiddenSize),
    intermediateSize: f('intermediate_size', count, d.intermediateSize),
    numHiddenLayers: f('num_hidden_layers', count, d.numHiddenLayers),
    numAttentionHeads: f('num_attention_heads', count, d.numAttentionHeads),
    attentionBias: f('attention_bias|qkv_bias', flag, false),
    useQkNorm: f('use_qk_norm|qk_normalization', flag, d.useQkNorm),
    hiddenAct: f('hidden_act', activation, 'gelu'),
    hiddenDropoutProb: f('hidden_dropout_prob|dropout', number, 0),
    attentionDropout: f('attention_dropout', number, 0),
    projectionDropout: f('projection_dropout|dropout', number, 0),
    initializerRange: f('initializer_range', number, 0.02),
    normType: f('norm_type', oneOf(['layer_norm', 'rms_norm']), d.normType),
    layerNormEps: f('layer_norm_eps', positive, 1e-6),
    imageSize: toPair(f('image_size', sides, d.imageSize)),
    patchSize: toPair(f('patch_size', sides, 14)),
    numChannels: f('num_channels', count, 3),
    useMaskToken: f('use_mask_token', flag, false),
    useAbsolutePositionEmbeddings: f('use_absolute_position_embeddings', flag, true),
    layerScaleInitValue: f('layer_scale_init_value|initializer_factor', number, 0.1),
    useMeanPooling: f('use_mean_pooling', flag, true)
  }
  checkSizes(f, common)
  return family.ownConfig?.(f, common) ?? common
}

/** Fields that have the same name in both dialects. */
const commonJson = (c: VisionConfig): Json => ({
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
  use_mean_pooling: c.useMeanPooling,
  ...visionFamilyOf(c.modelType).ownJson?.(c)
})

/** An image size as OpenGVLab writes it: one number for a square. */
export const sizeJson = ([height, width]: Pair): number | Pair => (height === width ? height : [height, width])

/** `vision_config` as Transformers writes it. */
export const hfVisionJson = (c: VisionConfig): Json => ({
  ...commonJson(c),
  model_type: visionFamilyOf(c.modelType).modelTypes.hf[0],
  attention_bias: c.attentionBias,
  use_qk_norm: c.useQkNorm,
  hidden_dropout_prob: c.hiddenDropoutProb,
  image_size: c.imageSize,
  patch_size: c.patchSize,
  layer_scale_init_value: c.layerScaleInitValue
})

/** `vision_config` as OpenGVLab writes it. */
export const originalVisionJson = (c: VisionConfig): Json => ({
  ...commonJson(c),
  architectures: ['InternVisionModel'],
  model_type: visionFamilyOf(c.modelType).modelTypes.original[0],
  qkv_bias: c.attentionBias,
  qk_normalization: c.useQkNorm,
  dropout: c.hiddenDropoutProb,
  image_size: sizeJson(c.imageSize),
  patch_size: sizeJson(c.patchSize),
  initializer_factor: c.layerScaleInitValue
})
