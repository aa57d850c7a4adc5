import { withoutUndefined } from '../../lib/plain-object.js'
import type { ConfigDialect } from '../model-family.js'
import { count, type Fields, flag, integer, type Json, oneOf, positive, sides, text, toPair } from './config-fields.js'
import { flashConfig, flashJson } from './flash-config.js'
import type { InternVLConfig } from './model-config.js'
import { textConfig } from './text-config.js'
import { dtypeOf, featureLayer } from './transformers-config.js'
import { originalVisionDefaults, originalVisionJson, sizeJson, visionConfig } from './vision-config.js'
import { textJson } from './write-text-config.js'

/** Source: `InternVLChatConfig` and `InternVLChatModel` (OpenGVLab/InternVL). */
const parse = (f: Fields): InternVLConfig => {
  const vision = visionConfig(f.inside('vision_config'), originalVisionDefaults)
  const decoder = textConfig(f.inside('llm_config'))
  const imageSize = toPair(f.maybe('force_image_size', sides) ?? vision.imageSize)
  const downsampleRatio = f('downsample_ratio', positive, 0.5)
  const patches = imageSize.reduce((n, side, i) => n * Math.floor(side / vision.patchSize[i]!), 1)
  return {
    modelType: 'internvl',
    dialect: 'original',
    visionConfig: vision,
    textConfig: decoder,
    imageTokenId: undefined,
    imageSeqLength: Math.floor(patches * downsampleRatio ** 2),
    downsampleRatio,
    psVersion: f('ps_version', oneOf(['v1', 'v2']), 'v1'),
    projectorHiddenAct: 'gelu',
    visionFeatureLayer: featureLayer(f, 'select_layer', integer, vision.numHiddenLayers),
    visionFeatureSelectStrategy: 'default',
    customParts: undefined,
    tieWordEmbeddings: decoder.tieWordEmbeddings,
    dtype: dtypeOf(f),
    flash: flashConfig(f),
    original: {
      template: f.maybe('template', text),
      imageSize,
      dynamicImageSize: f('dynamic_image_size', flag, false),
      useThumbnail: f('use_thumbnail', flag, false),
      minDynamicPatch: f('min_dynamic_patch', count, 1),
      maxDynamicPatch: f('max_dynamic_patch', count, 6),
      pad2square: f('pad2square', flag, false)
    }
  }
}

/** Image processing and prompt format; the defaults are those of the released models. */
const processingJson = ({ original: p, visionConfig: v }: InternVLConfig): Json =>
  withoutUndefined({
    force_image_size: sizeJson(p?.imageSize ?? v.imageSize),
    dynamic_image_size: p?.dynamicImageSize ?? true,
    use_thumbnail: p?.useThumbnail ?? true,
    min_dynamic_patch: p?.minDynamicPatch ?? 1,
    max_dynamic_patch: p?.maxDynamicPatch ?? 12,
    pad2square: p?.pad2square ?? false,
    template: p?.template
  })

const write = (c: InternVLConfig, decoderType?: string): Json =>
  withoutUndefined({
    architectures: ['InternVLChatModel'],
    model_type: 'internvl_chat',
    downsample_ratio: c.downsampleRatio,
    ...flashJson(c),
    ps_version: c.psVersion,
    select_layer: c.visionFeatureLayer,
    torch_dtype: c.dtype,
    tie_word_embeddings: c.tieWordEmbeddings,
    llm_config: textJson({ ...c.textConfig, tieWordEmbeddings: c.tieWordEmbeddings }, decoderType),
    vision_config: originalVisionJson(c.visionConfig)
  })

/** config.json of InternVL as OpenGVLab's code reads and writes it. */
export const openGvLabDialect: Omit<ConfigDialect, 'layouts'> = {
  modelType: 'internvl_chat',
  parse,
  write,
  writeDefaults: processingJson,
  decoderKey: 'llm_config',
  ownFields: ['architectures', 'model_type', 'dtype', 'torch_dtype', 'llm_config', 'vision_config', 'select_layer', 'auto_map'],
  ownVisionFields: ['architectures', 'model_type', 'qkv_bias', 'qk_normalization', 'dropout', 'initializer_factor', 'auto_map']
}
