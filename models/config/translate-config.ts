import type * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import type { Layout } from '../checkpoint/keys.js'
import { isJson, type Json } from './config-fields.js'
import type { InternVLConfig } from './config-types.js'
import { hfJson, originalJson, processingJson } from './write-config.js'

type Dialect = InternVLConfig['dialect']

/** The dialect of config.json that belongs to a layout of the keys. */
const dialectOf = (layout: Layout): Dialect => (layout.startsWith('original') ? 'original' : 'hf')

/** Fields that the other dialect has under another name, or that would mislead its readers; all others are kept. */
const renamed = {
  hf: ['architectures', 'model_type', 'dtype', 'torch_dtype', 'text_config', 'vision_config', 'vision_feature_layer'],
  original: ['architectures', 'model_type', 'dtype', 'torch_dtype', 'llm_config', 'vision_config', 'select_layer', 'auto_map']
} as const
const renamedVision = {
  hf: ['model_type', 'attention_bias', 'use_qk_norm', 'hidden_dropout_prob', 'layer_scale_init_value'],
  original: ['architectures', 'model_type', 'qkv_bias', 'qk_normalization', 'dropout', 'initializer_factor', 'auto_map']
} as const
/** Of a decoder: its rope and biases are told anew, whichever way they were told before. */
const renamedText = ['architectures', 'auto_map', 'rope_theta', 'rope_scaling', 'rope_parameters', 'bias', 'qkv_bias'] as const

const without = (source: unknown, keys: readonly string[]): Json =>
  isJson(source) ? Object.fromEntries(Object.entries(source).filter(([key]) => !keys.includes(key))) : {}

/** Where a `-hf` config.json remembers what its decoder was when it was first published. */
const provenance = 'original_model_type'

/** Whether a config.json says that its decoder's tensors were published under InternLM2's names. */
export const wasInternLm2 = (json: Json): boolean => {
  const llm = isJson(json.llm_config) ? json.llm_config : {}
  const [type, architectures] = [json[provenance] ?? llm.model_type, llm.architectures]
  return type === undefined ? `${architectures}` === 'InternLM2ForCausalLM' : type === 'internlm2'
}

const cannotSay = (layout: Layout, path: string, value: unknown, only: string): Issue =>
  issue('ConfigUntranslatable', `config.json: ${path} is ${JSON.stringify(value)}; the ${layout} layout has only ${only}`, {
    path,
    actual: value
  })

/** What a layout has no words for. */
const untranslatable = (c: InternVLConfig, layout: Layout): readonly Issue[] => {
  const { textConfig: t } = c
  const check = (fits: boolean, path: string, value: unknown, only: string) =>
    fits ? [] : [cannotSay(layout, path, value, only)]
  if (dialectOf(layout) === 'hf')
    return c.imageTokenId === undefined
      ? [issue('NoImageToken', 'config.json: no image_token_id, and no tokenizer that knows the id of <IMG_CONTEXT>', {})]
      : []
  const isLlama = t.modelType === 'llama' && t.outputBias === t.attentionBias && !t.mlpBias
  return [
    ...check(c.projectorHiddenAct === 'gelu', 'projector_hidden_act', c.projectorHiddenAct, 'gelu'),
    ...check(c.visionFeatureSelectStrategy === 'default', 'vision_feature_select_strategy', 'full', 'default'),
    ...check(typeof c.visionFeatureLayer === 'number', 'vision_feature_layer', c.visionFeatureLayer, 'one layer'),
    ...check(layout !== 'original-internlm2' || isLlama, 'text_config.model_type', t.modelType, "InternLM2's decoder, a Llama")
  ]
}

/** Written fields over those of the given file that the dialects share or do not know. */
const merged = (c: InternVLConfig, layout: Layout, json: Json): Json => {
  const from: Dialect = json.llm_config !== undefined || json.model_type === 'internvl_chat' ? 'original' : 'hf'
  const isHf = dialectOf(layout) === 'hf'
  const written = isHf ? hfJson(c) : originalJson(c, layout === 'original-internlm2')
  const decoder = isHf ? 'text_config' : 'llm_config'
  const inside = (key: string, source: unknown, dropped: readonly string[]): Json => ({
    [key]: { ...without(source, dropped), ...(written[key] as Json) }
  })
  const remembered = isHf && wasInternLm2(json) ? { [provenance]: 'internlm2' } : {}
  return {
    ...(isHf ? {} : processingJson(c)),
    ...without(json, [...renamed[from], provenance]),
    ...remembered,
    ...written,
    ...inside(decoder, json.text_config ?? json.llm_config, renamedText),
    ...inside('vision_config', json.vision_config, renamedVision[from])
  }
}

/** A part of the file with the type of the weights where it tells one. */
const retypedPart = (part: unknown, dtype: string): unknown =>
  isJson(part)
    ? Object.fromEntries(
        Object.entries(part).map(([key, value]) => [
          key,
          (key === 'dtype' || key === 'torch_dtype') && value !== null ? dtype : value
        ])
      )
    : part

/** The file as it is, but for what a conversion changes: the type of the weights. */
const retyped = (json: Json, dtype: InternVLConfig['dtype']): Json => {
  if (dtype === undefined) return json
  const told = json.model_type === 'internvl_chat' ? { torch_dtype: dtype } : { dtype }
  const parts = ['text_config', 'llm_config', 'vision_config'].filter((key) => isJson(json[key]))
  const inner = Object.fromEntries(parts.map((key) => [key, retypedPart(json[key], dtype)]))
  return { ...(retypedPart(json, dtype) as Json), ...(json.torch_dtype === undefined ? told : {}), ...inner }
}

/**
 * config.json for weights in a layout, in the dialect that belongs to it; fields of `json`, the file that a folder has, that no
 * dialect renames are kept. With `isUnchanged` the configuration is that of `json`, which is then kept whole where its dialect
 * fits. Errors, all of them: `ConfigUntranslatable`, `NoImageToken`.
 */
export const configJson = (
  config: InternVLConfig,
  layout: Layout,
  json: Json = {},
  isUnchanged = false
): E.Either<Issues, Json> => {
  const isHf = dialectOf(layout) === 'hf'
  const fits = dialectOf(layout) === config.dialect && (isHf || wasInternLm2(json) === (layout === 'original-internlm2'))
  return whenValid(untranslatable(config, layout), () =>
    isUnchanged && fits ? retyped(json, config.dtype) : merged(config, layout, json)
  )
}

/** The layout that is meant: `original` is InternLM2's for a decoder that was published under its names. */
export const settleLayout = (layout: Layout, json: Json): Layout =>
  layout === 'original' && wasInternLm2(json) ? 'original-internlm2' : layout
