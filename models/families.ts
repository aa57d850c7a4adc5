import type { KeyGroup, Layout, Layouts } from './checkpoint/keys.js'
import type { Json } from './config/config-fields.js'
import type { InternVLConfig } from './config/model-config.js'
import { internVLFamily } from './internvl/internvl-family.js'
import { internVLUFamily } from './internvl/internvl-u-family.js'
import { qianfanOcrFamily } from './internvl/qianfan-ocr-family.js'
import type { ConfigDialect, InternVLModule, ModelFamily, ModelParts } from './model-family.js'
import { withCustomParts } from './parts/custom-parts.js'

/** Every model type that can be loaded. Add a model type with its file and a line here; the first is the default. */
// biome-ignore format: one line for each model type
export const families: readonly [ModelFamily, ...ModelFamily[]] = [
  internVLFamily,
  qianfanOcrFamily,
  internVLUFamily
]

/** Model types that are refused by name, with the model that each is. */
export const unsupportedModelTypes: Readonly<Record<string, string>> = {
  interns1_pro: 'Intern-S1-Pro, a mixture of experts of its own with another vision tower',
  intern_vit_6b: 'a vision tower alone (InternViT), without projector and decoder',
  internvl_vision: 'a vision tower alone (InternViT), without projector and decoder'
}

/** Models whose `model_type` is that of others, by another field of config.json. */
const unsupportedBy: readonly (readonly [description: string, holds: (text: string, json: Json) => boolean])[] = [
  ['Mono-InternVL, whose decoder has visual experts in the place of a vision tower', (text) => text.includes('InternLM2VE')],
  ['Intern-S2, which is built on Qwen3.5', (text) => /intern_?s2/i.test(text)],
  ['InternVL 1.0, a contrastive model with QLLaMA', (_, json) => json.qllama_config !== undefined],
  ['SenseNova-U1, which reads and generates images with one model', (text) => /sensenova_?u1/i.test(text)]
]

/** The description of a model that is known and not supported; undefined for others. */
export const unsupportedModel = (json: Json): string | undefined => {
  const type = json.model_type
  if (typeof type === 'string' && Object.hasOwn(unsupportedModelTypes, type)) return unsupportedModelTypes[type]
  const llm = json.llm_config as Json | null | undefined
  const text = [type, json.architectures, llm?.architectures, llm?.model_type]
    .flat()
    .filter((name) => typeof name === 'string')
    .join(' ')
  return unsupportedBy.find(([, holds]) => holds(text, json))?.[0]
}

const dialects: readonly ConfigDialect[] = families.flatMap((family) => Object.values(family.dialects))

/** Values of `model_type` in config.json that can be loaded. */
export const modelTypes: readonly string[] = dialects.flatMap(({ modelType, otherModelTypes = [] }) => [
  modelType,
  ...otherModelTypes
])

/** The dialect of config.json that `model_type` names. */
export const dialectOfType = (modelType: string): ConfigDialect =>
  dialects.find((dialect) => [dialect.modelType, ...(dialect.otherModelTypes ?? [])].includes(modelType)) ?? dialects[0]!

/** The model family of a configuration. */
export const familyOf = (c: Pick<InternVLConfig, 'modelType'>): ModelFamily =>
  families.find(({ modelType }) => modelType === c.modelType) ?? families[0]

/** The module of a configuration, with its custom parts: the tree of parameters and the forward function. */
export const modelFor = (c: InternVLConfig): InternVLModule => withCustomParts(familyOf(c).build(c), c)

/** The key groups of every layout. */
export const layouts: Layouts = Object.assign({}, ...dialects.map((dialect) => dialect.layouts))

/** The key groups of a layout. */
export const keyGroupsOf = (layout: Layout): readonly KeyGroup[] => layouts[layout] ?? []

/** The layouts of a model's checkpoints by the name that the command line has for them. */
export const layoutNames = Object.keys(layouts) as readonly Layout[]

/** Whether a path is in the subtree of another. */
export const isWithin = (root: string, path: string): boolean => path === root || path.startsWith(`${root}.`)

const partRoots = families
  .flatMap(({ parts }) => Object.entries(parts) as [keyof ModelParts, string][])
  .sort(([, a], [, b]) => b.length - a.length) // the embeddings before the decoder around them

/**
 * The part of a model that a parameter belongs to, by its path. The embeddings, within the decoder, are a part of their own.
 * Undefined for a path that is in no model.
 */
export const partOfPath = (path: string): keyof ModelParts | undefined => partRoots.find(([, root]) => isWithin(root, path))?.[0]
