import type { Activation } from '../../lib/nn/activation.js'

/** Rows and columns, in pixels. */
export type Pair = readonly [height: number, width: number]

/** Configuration of a vision tower. Sizes in pixels are `[height, width]`. */
export interface VisionConfig {
  /** Name of the tower in the registry `visionTowers`. */
  readonly modelType: string
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly attentionBias: boolean
  readonly useQkNorm: boolean
  readonly hiddenAct: Activation
  readonly hiddenDropoutProb: number
  readonly attentionDropout: number
  readonly projectionDropout: number
  readonly initializerRange: number
  readonly normType: 'layer_norm' | 'rms_norm'
  readonly layerNormEps: number
  /** Image size of the stored position embeddings; for tiles of other sizes they are interpolated. */
  readonly imageSize: Pair
  readonly patchSize: Pair
  readonly numChannels: number
  readonly useMaskToken: boolean
  readonly useAbsolutePositionEmbeddings: boolean
  readonly layerScaleInitValue: number
  /** If false, a final layer norm follows the layers. */
  readonly useMeanPooling: boolean
}

/** Rotary position embedding of a decoder. Fields that the `ropeType` does not use are undefined. */
export interface RopeConfig {
  readonly ropeType: 'default' | 'linear' | 'dynamic' | 'yarn' | 'longrope' | 'llama3'
  readonly ropeTheta: number
  /** Share of the entries of a head that is rotated. */
  readonly partialRotaryFactor: number
  readonly factor: number | undefined
  readonly originalMaxPositionEmbeddings: number | undefined
  readonly attentionFactor: number | undefined
  readonly betaFast: number | undefined
  readonly betaSlow: number | undefined
  readonly mscale: number | undefined
  readonly mscaleAllDim: number | undefined
  readonly truncate: boolean | undefined
  readonly lowFreqFactor: number | undefined
  readonly highFreqFactor: number | undefined
  readonly shortFactor: readonly number[] | undefined
  readonly longFactor: readonly number[] | undefined
  /** Precision of the frequencies, see `RopeParameters`; not a field of config.json. */
  readonly roundedTo?: 'BF16' | 'F16' | undefined
}

export type LayerType = 'full_attention' | 'sliding_attention'

/** Configuration that all decoders share. */
export interface DecoderConfig {
  /** Name of the decoder in the registry `decoders`. */
  readonly modelType: string
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly hiddenAct: Activation
  readonly maxPositionEmbeddings: number
  readonly rmsNormEps: number
  readonly initializerRange: number
  readonly attentionDropout: number
  /** Whether `q_proj`, `k_proj` and `v_proj` have biases; `outputBias`: `o_proj`; `mlpBias`: the MLP. */
  readonly attentionBias: boolean
  readonly outputBias: boolean
  readonly mlpBias: boolean
  /** The field of the text configuration; whether the head is tied says `InternVLConfig.tieWordEmbeddings`. */
  readonly tieWordEmbeddings: boolean
  /** Number of positions that a token of a `sliding_attention` layer attends to, itself included. */
  readonly slidingWindow: number | undefined
  /** Attention type of each layer. */
  readonly layerTypes: readonly LayerType[]
  readonly rope: RopeConfig
  readonly bosTokenId: number | undefined
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | undefined
}

/** Further fields of a mixture of experts. */
export interface ExpertsConfig {
  readonly numExperts: number
  readonly numExpertsPerToken: number
  readonly routerAuxLossCoef: number
  readonly outputRouterLogits: boolean
}
