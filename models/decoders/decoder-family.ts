import type { Module } from '../../lib/module.js'
import type { Planned } from '../checkpoint/fuse.js'
import type { KeyTemplates } from '../checkpoint/keys.js'
import { type Fields, flag, type Json } from '../config/config-fields.js'
import type { DecoderConfig, RopeConfig } from '../config/config-types.js'

/** Defaults of a configuration class of Transformers. Optional sizes follow from the others. */
export interface DecoderDefaults {
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  /** Without it, as many as attention heads. */
  readonly numKeyValueHeads?: number
  /** Without it, `hiddenSize / numAttentionHeads`. */
  readonly headDim?: number
  readonly maxPositionEmbeddings: number
  readonly rmsNormEps: number
  readonly ropeTheta: number
  /** `rope_parameters` of a file that has none. */
  readonly ropeParameters?: Json
  readonly originalMaxPositionEmbeddings?: number
  readonly bosTokenId?: number
  readonly eosTokenId?: number
  readonly padTokenId?: number
}

/** The layers of a decoder that use sliding-window attention. */
export interface SlidingWindow {
  /** `upper`: layers from `max_window_layers` on; `even`: every second layer, from layer 0 on. */
  readonly layers: 'none' | 'all' | 'even' | 'upper'
  /** Default of `sliding_window`, in positions. */
  readonly window?: number
  /** Whether `use_sliding_window` has to be true. */
  readonly isOptional?: boolean
}

/** Rotary embedding of a decoder whose configuration differs from the common one. */
export interface RopeRules {
  /** Further names of rope types, which win over the common meaning of a name. */
  readonly typeNames: Readonly<Record<string, RopeConfig['ropeType']>>
  /** Whether `partial_rotary_factor` is read; other decoders rotate whole heads and ignore the field. */
  readonly isPartial: boolean
}

/** Whether projections have biases. */
export interface Biases {
  readonly attentionBias: boolean
  readonly outputBias: boolean
  readonly mlpBias: boolean
}

/**
 * A decoder that a configuration may name, and the facts about the decoder that the library needs. The decoder's file exports one value
 * of this type; its line in `models/decoders/index.ts` registers the decoder. `C` is its configuration.
 */
export interface DecoderFamily<C extends DecoderConfig = DecoderConfig> {
  /** `model_type` in config.json. */
  readonly modelType: string
  /** `modelType` of the parsed configuration. It differs from `modelType` for a decoder published under several names. */
  readonly configType: C['modelType']
  /** The class that `architectures` in config.json names. */
  readonly architecture: string
  readonly defaults: DecoderDefaults
  readonly slidingWindow: SlidingWindow
  readonly rope?: RopeRules
  /** Biases as config.json says. */
  readonly biases: (f: Fields) => Biases
  /** Fields of config.json that say the biases. */
  readonly biasJson: (c: Biases) => Json
  /** Whether config.json can say these biases under this `model_type`; true unless given. */
  readonly canWrite?: (c: Biases) => boolean
  /** Parses the fields that only this decoder has; `common` are the parsed shared ones. */
  readonly ownConfig?: (f: Fields, common: DecoderConfig) => Omit<C, keyof DecoderConfig>
  /** The JSON of the fields that only this decoder has. */
  ownJson?(c: C): Json
  /** The module: the tree of parameters under `model.language_model`, and the forward function. */
  build(c: C): Module
  /** Converts the experts of a checkpoint file to those of the module tree, where files store them in another way. */
  readonly planExperts?: (stored: readonly Planned[]) => readonly Planned[]
  /** Names of the tensors in OpenGVLab's files, where they are not those of the module tree; layout `original-<modelType>`. */
  readonly originalKeys?: KeyTemplates
  /** Conversation template of the released InternVL models with this decoder; `internvl2_5` unless given. */
  readonly conversationTemplate?: string
}

/** Configuration type of a decoder family. */
export type ConfigOf<F> = F extends DecoderFamily<infer C> ? C : never

/** Biases of `attention_bias` for q, k, v and output; the MLP has none. */
export const biasesOfAttention = {
  biases: (f: Fields): Biases => {
    const bias = f('attention_bias', flag, false)
    return { attentionBias: bias, outputBias: bias, mlpBias: false }
  },
  biasJson: ({ attentionBias }: Biases): Json => ({ attention_bias: attentionBias })
}

/** Biases that the architecture fixes; config.json has no field for them. */
export const fixedBiases = (biases: Biases) => ({ biases: () => biases, biasJson: (): Json => ({}) })
