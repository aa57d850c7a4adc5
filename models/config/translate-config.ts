import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, nameText, valueText, whenValid } from '../../lib/error.js'
import { withoutUndefined } from '../../lib/plain-object.js'
import type { Layout } from '../checkpoint/keys.js'
import type { DecoderFamily } from '../decoders/decoder-family.js'
import { findDecoder } from '../decoders/index.js'
import { familyOf } from '../families.js'
import type { ConfigDialect } from '../model-family.js'
import { customPartsJson } from '../parts/custom-parts.js'
import { isJson, type Json } from './config-fields.js'
import type { InternVLConfig } from './model-config.js'

/** The dialect of config.json that belongs to a layout of the keys. */
const dialectNameOf = (layout: Layout): InternVLConfig['dialect'] => (layout.startsWith('original') ? 'original' : 'hf')

/** Fields of a decoder that a conversion removes and writes in the target dialect, since their names differ between dialects. */
const rewrittenTextFields = [
  'architectures',
  'auto_map',
  'rope_theta',
  'rope_scaling',
  'rope_parameters',
  'bias',
  'qkv_bias'
] as const

const without = (source: unknown, keys: readonly string[]): Json =>
  isJson(source) ? Object.fromEntries(Object.entries(source).filter(([key]) => !keys.includes(key))) : {}

/** The field of a `-hf` config.json that says under which `model_type` its decoder was first published. */
const provenance = 'original_model_type'

/** The decoder of a config.json where OpenGVLab's files store it under names of its own, as InternLM2's do. */
const renamedDecoderOf = (json: Json): DecoderFamily | undefined => {
  const llm = isJson(json.llm_config) ? json.llm_config : {}
  const [type, architectures] = [json[provenance] ?? llm.model_type, llm.architectures]
  return findDecoder(
    ({ modelType, architecture, originalKeys }) =>
      originalKeys !== undefined && (type === undefined ? [architectures].flat()[0] === architecture : type === modelType)
  )
}

const originalLayoutOf = (decoder: DecoderFamily | undefined): Layout => (decoder ? `original-${decoder.modelType}` : 'original')

const untranslatableIssue = (layout: Layout, path: string, value: unknown, only: string): Issue =>
  issue('ConfigUntranslatable', `config.json: ${path} is ${valueText(value)}; the ${layout} layout has only ${only}`, {
    path,
    actual: value
  })

/** An error for every field that a layout cannot express. */
const untranslatable = (c: InternVLConfig, layout: Layout): readonly Issue[] => {
  const { textConfig: t } = c
  const { imageToken } = familyOf(c)
  const check = (isExpressible: boolean, path: string, value: unknown, only: string) =>
    isExpressible ? [] : [untranslatableIssue(layout, path, value, only)]
  if (dialectNameOf(layout) === 'hf')
    return c.imageTokenId === undefined
      ? [issue('NoImageToken', `config.json: no image_token_id, and no tokenizer that knows the id of ${imageToken}`, {})]
      : []
  const decoder = findDecoder(({ modelType }) => layout === `original-${modelType}`)
  const fitsDecoder = !decoder || (decoder.configType === t.modelType && (decoder.canWrite?.(t) ?? true))
  return [
    ...check(c.projectorHiddenAct === 'gelu', 'projector_hidden_act', c.projectorHiddenAct, 'gelu'),
    ...check(c.visionFeatureSelectStrategy === 'default', 'vision_feature_select_strategy', 'full', 'default'),
    ...check(c.customParts === undefined, 'custom_parts', customPartsJson(c.customParts), "the model's own parts"),
    ...check(typeof c.visionFeatureLayer === 'number', 'vision_feature_layer', c.visionFeatureLayer, 'one layer'),
    ...check(
      fitsDecoder,
      'text_config.model_type',
      t.modelType,
      `${decoder?.modelType} decoders, which are a ${decoder?.configType}`
    )
  ]
}

/** The dialect of a family that belongs to a layout. */
const dialectFor = (c: InternVLConfig, name: InternVLConfig['dialect']): E.Either<Issues, ConfigDialect> => {
  const { dialects, modelType } = familyOf(c)
  const message = `config.json: ${modelType} models have no ${name} layout; they can be written as ${Object.keys(dialects).join(', ')}`
  return E.fromNullable<Issues>([issue('ConfigUntranslatable', message, { actual: modelType })])(dialects[name])
}

/** Written fields over those of the given file that the dialects share or do not know. */
const merged = (c: InternVLConfig, layout: Layout, json: Json, to: ConfigDialect): Json => {
  const { dialects } = familyOf(c)
  const decoder = findDecoder(({ modelType }) => layout === `original-${modelType}`)
  const isFrom = ({ decoderKey, modelType }: ConfigDialect) => json[decoderKey] !== undefined || json.model_type === modelType
  const from = dialects.original && isFrom(dialects.original) ? dialects.original : (dialects.hf ?? to)
  const written = to.write(c, decoder?.modelType)
  const part = (key: string, source: unknown, dropped: readonly string[]): Json => ({
    [key]: { ...without(source, dropped), ...(written[key] as Json) }
  })
  const published = renamedDecoderOf(json)
  const isRelative = to.otherModelTypes?.includes(nameText(json.model_type)) ?? false
  const { model_type, architectures, auto_map } = json
  return {
    ...to.writeDefaults?.(c),
    ...without(json, [...from.ownFields, provenance]),
    ...(to === dialects.hf && published ? { [provenance]: published.modelType } : {}),
    ...written,
    ...(isRelative ? withoutUndefined({ model_type, architectures, auto_map }) : {}),
    ...part(to.decoderKey, json.text_config ?? json.llm_config, rewrittenTextFields),
    ...part('vision_config', json.vision_config, from.ownVisionFields)
  }
}

/** A part of config.json with another type of the weights, where the part states one. */
const retypedPart = (part: unknown, dtype: string): unknown =>
  isJson(part)
    ? Object.fromEntries(
        Object.entries(part).map(([key, value]) => [
          key,
          (key === 'dtype' || key === 'torch_dtype') && value !== null ? dtype : value
        ])
      )
    : part

/** config.json unchanged except for the type of the weights. */
const retyped = (c: InternVLConfig, json: Json): Json => {
  const { dtype } = c
  if (dtype === undefined) return json
  const added = c.dialect === 'original' ? { torch_dtype: dtype } : { dtype }
  const parts = ['text_config', 'llm_config', 'vision_config'].filter((key) => isJson(json[key]))
  const retypedParts = Object.fromEntries(parts.map((key) => [key, retypedPart(json[key], dtype)]))
  return { ...(retypedPart(json, dtype) as Json), ...(json.torch_dtype === undefined ? added : {}), ...retypedParts }
}

/**
 * config.json for weights in a layout, in the dialect that belongs to the layout. Fields of `json`, the present file, that no
 * dialect renames are kept. `isUnchanged` says that `config` is that of `json`, which is then kept whole where its dialect fits.
 * Errors, all of them: `ConfigUntranslatable`, `NoImageToken`.
 */
export const configJson = (
  config: InternVLConfig,
  layout: Layout,
  json: Json = {},
  isUnchanged = false
): E.Either<Issues, Json> => {
  const name = dialectNameOf(layout)
  const keepsFile =
    isUnchanged && name === config.dialect && (name === 'hf' || originalLayoutOf(renamedDecoderOf(json)) === layout)
  return E.chain((dialect: ConfigDialect) =>
    whenValid(untranslatable(config, layout), () => (keepsFile ? retyped(config, json) : merged(config, layout, json, dialect)))
  )(dialectFor(config, name))
}

/**
 * The layout to write: `original` becomes that of the decoder which was published under names of its own, `hf` that of a model type with
 * names of its own in Transformers.
 */
export const settleLayout = (layout: Layout, config: Pick<InternVLConfig, 'modelType'>, json: Json): Layout => {
  if (layout === 'hf') return familyOf(config).dialects.hf?.writtenLayout ?? 'hf'
  return layout === 'original' ? originalLayoutOf(renamedDecoderOf(json)) : layout
}
