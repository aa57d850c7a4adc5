import { withoutUndefined } from '../../lib/plain-object.js'
import type { ConfigDialect } from '../model-family.js'
import { customPartsJson, parseCustomParts } from '../parts/custom-parts.js'
import {
  activation,
  count,
  either,
  type Fields,
  flag,
  index,
  integer,
  type Json,
  type Kind,
  listOf,
  oneOf,
  positive,
  text
} from './config-fields.js'
import { flashConfig, flashJson } from './flash-config.js'
import type { InternVLConfig } from './model-config.js'
import { textConfig } from './text-config.js'
import { hfVisionDefaults, hfVisionJson, visionConfig } from './vision-config.js'
import { textJson } from './write-text-config.js'

/** Type of the weights, under its present name or that before transformers 4.56. */
export const dtypeOf = (f: Fields): InternVLConfig['dtype'] =>
  f.maybe(f.maybe('dtype', text) ? 'dtype' : 'torch_dtype', oneOf(['float32', 'float16', 'bfloat16', 'float64'] as const))

/** Parses the index of the hidden state that the projector reads, counted from the first, 0, or from the last, -1. */
export const featureLayer = <A extends number | readonly number[]>(
  f: Fields,
  key: string,
  kind: Kind<A | number>,
  numHiddenLayers: number
) => {
  const layers = f<A | number>(key, kind, -1)
  const states = numHiddenLayers + 1
  if ([layers].flat().some((layer) => layer < -states || layer >= states))
    f.note(key, `from ${-states} to ${states - 1}, for the tower has ${numHiddenLayers} layers`)
  return layers
}

const parse = (f: Fields): InternVLConfig => {
  const vision = visionConfig(f.inside('vision_config'), hfVisionDefaults)
  return {
    modelType: 'internvl',
    dialect: 'hf',
    visionConfig: vision,
    textConfig: textConfig(f.inside('text_config')),
    imageTokenId: f('image_token_id', index, 151667),
    imageSeqLength: f('image_seq_length', count, 256),
    downsampleRatio: f('downsample_ratio', positive, 0.5),
    psVersion: f('ps_version', oneOf(['v1', 'v2']), 'v2'),
    projectorHiddenAct: f('projector_hidden_act', activation, 'gelu'),
    visionFeatureLayer: featureLayer(f, 'vision_feature_layer', either(integer, listOf(integer)), vision.numHiddenLayers),
    visionFeatureSelectStrategy: f('vision_feature_select_strategy', oneOf(['default', 'full']), 'default'),
    tieWordEmbeddings: f('tie_word_embeddings', flag, true),
    dtype: dtypeOf(f),
    flash: flashConfig(f),
    customParts: parseCustomParts(f),
    original: undefined
  }
}

const write = (c: InternVLConfig, decoderType?: string): Json =>
  withoutUndefined({
    architectures: ['InternVLForConditionalGeneration'],
    model_type: 'internvl',
    downsample_ratio: c.downsampleRatio,
    ...flashJson(c),
    custom_parts: customPartsJson(c.customParts),
    dtype: c.dtype,
    torch_dtype: c.dtype, // its name until 4.56
    image_seq_length: c.imageSeqLength,
    image_token_id: c.imageTokenId,
    projector_hidden_act: c.projectorHiddenAct,
    ps_version: c.psVersion === 'v1' ? 'v1' : undefined,
    text_config: textJson(c.textConfig, decoderType),
    tie_word_embeddings: c.tieWordEmbeddings,
    vision_config: hfVisionJson(c.visionConfig),
    vision_feature_layer: c.visionFeatureLayer,
    vision_feature_select_strategy: c.visionFeatureSelectStrategy
  })

/** config.json of InternVL as Transformers reads and writes it. */
export const transformersDialect: Omit<ConfigDialect, 'layouts'> = {
  modelType: 'internvl',
  parse,
  write,
  decoderKey: 'text_config',
  ownFields: [
    'architectures',
    'model_type',
    'custom_parts',
    'dtype',
    'torch_dtype',
    'text_config',
    'vision_config',
    'vision_feature_layer',
    'auto_map'
  ],
  ownVisionFields: ['model_type', 'attention_bias', 'use_qk_norm', 'hidden_dropout_prob', 'layer_scale_init_value']
}
