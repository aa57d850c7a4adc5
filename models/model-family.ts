import type { Layout, Layouts } from './checkpoint/keys.js'
import type { Fields, Json } from './config/config-fields.js'
import type { InternVLConfig } from './config/model-config.js'
import type { internVL } from './internvl/internvl.js'

/** The module of a model family, and the tree of its parameters. */
export type InternVLModule = ReturnType<typeof internVL>

/** Paths of the parts of a model in its module tree, which are prefixes of checkpoint keys. */
export interface ModelParts {
  readonly vision: string
  readonly projector: string
  readonly decoder: string
  readonly embeddings: string
  readonly head: string
  /** The router of a Flash model: pooling, gating, and the projector of compressed tiles. */
  readonly pooling: string
  readonly gating: string
  readonly quarterProjector: string
  /** Embeddings of special tokens in a table of their own. */
  readonly specialEmbeddings: string
}

/** One published form of a family's config.json and weights. */
export interface ConfigDialect {
  /** `model_type` in config.json. */
  readonly modelType: string
  /** Further values of `model_type` for the same model. A conversion to another dialect writes `modelType`. */
  readonly otherModelTypes?: readonly string[]
  readonly parse: (f: Fields) => InternVLConfig
  /** The JSON of all fields; `decoderType` is the `model_type` of the decoder where it is not the first that fits. */
  readonly write: (c: InternVLConfig, decoderType?: string) => Json
  /** Further JSON that a file has under keys which `write` must not replace. */
  readonly writeDefaults?: (c: InternVLConfig) => Json
  /** The key of the decoder's configuration. */
  readonly decoderKey: 'text_config' | 'llm_config'
  /** Fields that the other dialect has under another name or that would mislead its readers; a translation drops them. */
  readonly ownFields: readonly string[]
  readonly ownVisionFields: readonly string[]
  /** Names of the tensors. A layout that several families have is the same in all. */
  readonly layouts: Layouts
  /** The layout that is written where `hf` is asked for; `hf` itself unless given. */
  readonly writtenLayout?: Layout
}

/** A model type, and the facts about the model that the library needs; `models/families.ts` lists all. */
export interface ModelFamily {
  /** `InternVLConfig.modelType`. */
  readonly modelType: string
  readonly build: (c: InternVLConfig) => InternVLModule
  readonly parts: ModelParts
  /** Name of the token that stands for one image feature; its id is `imageTokenId` in config.json or the tokenizer's. */
  readonly imageToken: string
  readonly dialects: Readonly<Partial<Record<InternVLConfig['dialect'], ConfigDialect>>>
}

/** The dialect of another model type with the same fields. `configType` is the `modelType` of its parsed configurations. */
export const renameDialect = (dialect: ConfigDialect, modelType: string, configType: string): ConfigDialect => ({
  ...dialect,
  modelType,
  parse: (f) => ({ ...dialect.parse(f), modelType: configType }),
  write: (c, decoderType) => ({ ...dialect.write(c, decoderType), model_type: modelType })
})
