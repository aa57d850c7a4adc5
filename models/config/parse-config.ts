import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import {
  activation,
  count,
  either,
  type Fields,
  fieldsOf,
  flag,
  index,
  integer,
  isJson,
  type Json,
  listOf,
  number,
  oneOf,
  positive,
  sides,
  text,
  toPair
} from './config-fields.js'
import type { InternVLConfig, VisionConfig } from './config-types.js'
import { textConfig } from './text-config.js'

export type * from './config-types.js'

type VisionDefaults = Pick<
  VisionConfig,
  'hiddenSize' | 'intermediateSize' | 'numHiddenLayers' | 'numAttentionHeads' | 'useQkNorm' | 'normType'
> & { readonly imageSize: number }

/** Source: `InternVLVisionConfig` (transformers 5.23). */
const hfVision: VisionDefaults = {
  hiddenSize: 1024,
  intermediateSize: 4096,
  numHiddenLayers: 24,
  numAttentionHeads: 16,
  useQkNorm: false,
  normType: 'layer_norm',
  imageSize: 448
}
/** Source: `InternVisionConfig` (OpenGVLab/InternVL). */
const originalVision: VisionDefaults = {
  hiddenSize: 3200,
  intermediateSize: 12800,
  numHiddenLayers: 48,
  numAttentionHeads: 25,
  useQkNorm: true,
  normType: 'rms_norm',
  imageSize: 224
}

const visionConfig = (f: Fields, d: VisionDefaults): VisionConfig => {
  const [hiddenSize, numAttentionHeads] = [
    f('hidden_size', count, d.hiddenSize),
    f('num_attention_heads', count, d.numAttentionHeads)
  ]
  if (hiddenSize % numAttentionHeads !== 0) f.note('hidden_size', `a multiple of num_attention_heads, ${numAttentionHeads}`)
  return {
    hiddenSize,
    intermediateSize: f('intermediate_size', count, d.intermediateSize),
    numHiddenLayers: f('num_hidden_layers', count, d.numHiddenLayers),
    numAttentionHeads,
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
}

const dtypeOf = (f: Fields) =>
  f.maybe(f.maybe('dtype', text) ? 'dtype' : 'torch_dtype', oneOf(['float32', 'float16', 'bfloat16', 'float64'] as const))

const featureLayer = either(integer, listOf(integer))

const hfConfig = (f: Fields): InternVLConfig => ({
  dialect: 'hf',
  visionConfig: visionConfig(f.inside('vision_config'), hfVision),
  textConfig: textConfig(f.inside('text_config')),
  imageTokenId: f('image_token_id', index, 151667),
  imageSeqLength: f('image_seq_length', count, 256),
  downsampleRatio: f('downsample_ratio', positive, 0.5),
  psVersion: f('ps_version', oneOf(['v1', 'v2']), 'v2'),
  projectorHiddenAct: f('projector_hidden_act', activation, 'gelu'),
  visionFeatureLayer: f('vision_feature_layer', featureLayer, -1),
  visionFeatureSelectStrategy: f('vision_feature_select_strategy', oneOf(['default', 'full']), 'default'),
  tieWordEmbeddings: f('tie_word_embeddings', flag, true),
  dtype: dtypeOf(f),
  original: undefined
})

/** Source: `InternVLChatConfig` and `InternVLChatModel` (OpenGVLab/InternVL). */
const originalConfig = (f: Fields): InternVLConfig => {
  const vision = visionConfig(f.inside('vision_config'), originalVision)
  const decoder = textConfig(f.inside('llm_config'))
  const imageSize = toPair(f.maybe('force_image_size', sides) ?? vision.imageSize)
  const downsampleRatio = f('downsample_ratio', positive, 0.5)
  const patches = imageSize.reduce((n, side, i) => n * Math.floor(side / vision.patchSize[i]!), 1)
  return {
    dialect: 'original',
    visionConfig: vision,
    textConfig: decoder,
    imageTokenId: undefined,
    imageSeqLength: Math.floor(patches * downsampleRatio ** 2),
    downsampleRatio,
    psVersion: f('ps_version', oneOf(['v1', 'v2']), 'v1'),
    projectorHiddenAct: 'gelu',
    visionFeatureLayer: f('select_layer', integer, -1),
    visionFeatureSelectStrategy: 'default',
    tieWordEmbeddings: decoder.tieWordEmbeddings,
    dtype: dtypeOf(f),
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

const dialects = { internvl: hfConfig, internvl_chat: originalConfig }

const notAnObject = (file: string): E.Either<Issues, never> =>
  E.left([issue('ConfigNotAnObject', `${file}: it should be a JSON object`, { file })])

/**
 * `config.json` as parsed, to a typed configuration; what is absent has Transformers' default.
 * Errors, all of them: `ConfigField` with `path`, `expected`, `actual` (an unknown `model_type` is one); `ConfigNotAnObject`.
 */
export const parseConfig = (json: unknown, file = 'config.json'): E.Either<Issues, InternVLConfig> => {
  if (!isJson(json)) return notAnObject(file)
  const issues: Issue[] = []
  const f = fieldsOf(json, file, issues)
  const likely = f.has('llm_config') ? 'internvl_chat' : 'internvl'
  const config = dialects[f('model_type', oneOf(['internvl', 'internvl_chat'] as const), likely)](f)
  return whenValid(issues, () => config)
}

const readText =
  (file: string): TaskEither<Issues, string> =>
  () =>
    readFile(file, 'utf8').then(E.right, (error: NodeJS.ErrnoException): E.Either<Issues, string> => {
      const why = error.code === 'ENOENT' ? 'no such file; a checkpoint folder has one' : error.message
      return E.left([issue('ConfigMissing', `${file}: ${why}`, { file })])
    })

/** `config.json` of a checkpoint folder, parsed as JSON only. Errors: `ConfigMissing`, `ConfigNotJson`, `ConfigNotAnObject`. */
export const readConfigJson =
  (folder: string): TaskEither<Issues, Json> =>
  async () => {
    const file = join(folder, 'config.json')
    const source = await readText(file)()
    if (E.isLeft(source)) return source
    try {
      const json: unknown = JSON.parse(source.right)
      return isJson(json) ? E.right(json) : notAnObject(file)
    } catch (error) {
      return E.left([issue('ConfigNotJson', `${file}: it is not JSON (${(error as Error).message})`, { file })])
    }
  }

/** The configuration of a checkpoint folder. Errors: those of `readConfigJson` and of `parseConfig`. */
export const readConfig =
  (folder: string): TaskEither<Issues, InternVLConfig> =>
  async () =>
    E.chain((json: Json) => parseConfig(json, join(folder, 'config.json')))(await readConfigJson(folder)())
