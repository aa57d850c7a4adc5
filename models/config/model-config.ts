import type { Module } from '../../lib/module.js'
import type { Activation } from '../../lib/nn/activation.js'
import type { TextConfig } from '../decoders/index.js'
import type { FlashThresholds } from '../internvl/flash/tile-features.js'
import type { Json } from './config-fields.js'
import type { Pair, VisionConfig } from './config-types.js'

/** Image processing and prompt format in OpenGVLab's config.json, which has no separate processor configuration. */
export interface OriginalProcessing {
  readonly template: string | undefined
  readonly imageSize: Pair
  readonly dynamicImageSize: boolean
  readonly useThumbnail: boolean
  readonly minDynamicPatch: number
  readonly maxDynamicPatch: number
  readonly pad2square: boolean
}

/** The router of InternVL3.5-Flash (`flash_mode`, `flash_relative_threshold`, `flash_absolute_threshold`). */
export interface FlashConfig extends FlashThresholds {
  /** Whether tiles are compressed unless an option says otherwise. */
  readonly mode: boolean
}

/** Special tokens by their texts, and their ids, which the tokenizer has. */
export interface SpecialTokens {
  readonly tokens: readonly string[]
  readonly ids?: readonly number[] | undefined
}

/** A kind of module that a program brings for a place in the model, such as a projector of its own. */
export interface PartFamily {
  /** Name under which config.json names the kind. */
  readonly type: string
  /** The module, which is called as the module in its place; `settings` are those of config.json. */
  readonly build: (config: InternVLConfig, settings: Json) => Module
}

/** A module of a program in the place of one of the model's. */
export interface CustomPart {
  readonly type: string
  readonly settings: Json
  /** The kind; undefined where config.json names one that is not known yet. */
  readonly family?: PartFamily | undefined
}

/** Custom parts by the paths that they take: `model.multi_modal_projector`. */
export type CustomParts = Readonly<Record<string, CustomPart>>

/** `config.json` of a checkpoint, the same for every dialect. */
export interface InternVLConfig {
  /** Name of the model family in the registry `families`. */
  readonly modelType: string
  /** Dialect of the file: that of Transformers (`hf`) or that of OpenGVLab (`original`). */
  readonly dialect: 'hf' | 'original'
  readonly visionConfig: VisionConfig
  readonly textConfig: TextConfig
  /** Id of the image token. Undefined in OpenGVLab's dialect, where the tokenizer has the id of `ModelFamily.imageToken`. */
  readonly imageTokenId: number | undefined
  /** Number of image tokens per tile. */
  readonly imageSeqLength: number
  readonly downsampleRatio: number
  readonly psVersion: 'v1' | 'v2'
  readonly projectorHiddenAct: Activation
  /** Index into the hidden states of the vision tower, where 0 is the embeddings; or a list of indices. */
  readonly visionFeatureLayer: number | readonly number[]
  readonly visionFeatureSelectStrategy: 'default' | 'full'
  /** Whether the head shares the embedding matrix. A checkpoint that stores two different matrices overrides the field. */
  readonly tieWordEmbeddings: boolean
  /** Type of the stored weights. */
  readonly dtype: 'float32' | 'float16' | 'bfloat16' | 'float64' | undefined
  /** Only of a Flash model; a checkpoint that stores a router has one even if the file does not say so. */
  readonly flash?: FlashConfig | undefined
  /** Special tokens with embeddings in a table of their own, in its order; only of InternVL-U. */
  readonly specialTokens?: SpecialTokens | undefined
  /** Modules of a program in the place of the model's; only in Transformers' dialect. */
  readonly customParts?: CustomParts | undefined
  /** Only in OpenGVLab's dialect. */
  readonly original: OriginalProcessing | undefined
}
