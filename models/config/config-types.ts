import type { Activation } from '../../lib/nn/activation.js'

/** Rows and columns, in pixels. */
export type Pair = readonly [height: number, width: number]

/** The vision tower, InternViT. Sizes in pixels are `[height, width]`. */
export interface VisionConfig {
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
  /** Of the stored position embeddings; tiles of other sizes interpolate them. */
  readonly imageSize: Pair
  readonly patchSize: Pair
  readonly numChannels: number
  readonly useMaskToken: boolean
  readonly useAbsolutePositionEmbeddings: boolean
  readonly layerScaleInitValue: number
  /** When false, a final layer norm follows the layers. */
  readonly useMeanPooling: boolean
}

/** What a folder in OpenGVLab's first layout says of processing, for want of a processor configuration. */
export interface OriginalProcessing {
  readonly template: string | undefined
  readonly imageSize: Pair
  readonly dynamicImageSize: boolean
  readonly useThumbnail: boolean
  readonly minDynamicPatch: number
  readonly maxDynamicPatch: number
  readonly pad2square: boolean
}

/** `config.json` of an InternVL checkpoint, whichever dialect it is in. */
export interface InternVLConfig {
  readonly dialect: 'hf' | 'original'
  readonly visionConfig: VisionConfig
  readonly textConfig: TextConfig
  /** Undefined where the file does not say (the first layout): then it is the tokenizer's id of `<IMG_CONTEXT>`. */
  readonly imageTokenId: number | undefined
  /** Image tokens a tile. */
  readonly imageSeqLength: number
  readonly downsampleRatio: number
  readonly psVersion: 'v1' | 'v2'
  readonly projectorHiddenAct: Activation
  /** Index into the vision tower's hidden states, 0 being the embeddings; or several. */
  readonly visionFeatureLayer: number | readonly number[]
  readonly visionFeatureSelectStrategy: 'default' | 'full'
  /** The head is the embedding matrix, unless the checkpoint has both and they differ. */
  readonly tieWordEmbeddings: boolean
  /** Of the stored weights. */
  readonly dtype: 'float32' | 'float16' | 'bfloat16' | 'float64' | undefined
  /** Only in the first layout. */
  readonly original: OriginalProcessing | undefined
}

/** Rotary position embedding of a decoder. Fields that a `ropeType` does not use are undefined. */
export interface RopeConfig {
  readonly ropeType: 'default' | 'linear' | 'dynamic' | 'yarn' | 'longrope' | 'llama3'
  readonly ropeTheta: number
  /** Share of the head that is rotated. */
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
  /** See `RopeParameters`; no file says so. */
  readonly roundedTo?: 'BF16' | 'F16' | undefined
}

export type LayerType = 'full_attention' | 'sliding_attention'

/** What every decoder has. */
export interface DecoderConfig {
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
  /** Biases of `q_proj`, `k_proj`, `v_proj`; of `o_proj`; of the feed-forward. */
  readonly attentionBias: boolean
  readonly outputBias: boolean
  readonly mlpBias: boolean
  /** The text configuration's own; the head is tied by `InternVLConfig.tieWordEmbeddings`. */
  readonly tieWordEmbeddings: boolean
  /** Positions that a `sliding_attention` layer sees, itself included. */
  readonly slidingWindow: number | undefined
  /** One for each layer. */
  readonly layerTypes: readonly LayerType[]
  readonly rope: RopeConfig
  readonly bosTokenId: number | undefined
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | undefined
}

/** What a mixture of experts adds. */
export interface ExpertsConfig {
  readonly numExperts: number
  readonly numExpertsPerToken: number
  readonly routerAuxLossCoef: number
  readonly outputRouterLogits: boolean
}

export interface Qwen2Config extends DecoderConfig {
  readonly modelType: 'qwen2'
}
export interface Qwen3Config extends DecoderConfig {
  readonly modelType: 'qwen3'
}
export interface LlamaConfig extends DecoderConfig {
  readonly modelType: 'llama'
}
export interface Phi3Config extends DecoderConfig {
  readonly modelType: 'phi3'
}
export interface Qwen3MoeConfig extends DecoderConfig, ExpertsConfig {
  readonly modelType: 'qwen3_moe'
  readonly moeIntermediateSize: number
  readonly normTopkProb: boolean
  /** Every how many layers are experts; `mlpOnlyLayers` never are. */
  readonly decoderSparseStep: number
  readonly mlpOnlyLayers: readonly number[]
}
export interface GptOssConfig extends DecoderConfig, ExpertsConfig {
  readonly modelType: 'gpt_oss'
  readonly swigluAlpha: number
  readonly swigluLimit: number
}

/** A decoder's configuration, told apart by `modelType`. */
export type TextConfig = Qwen2Config | Qwen3Config | LlamaConfig | Phi3Config | Qwen3MoeConfig | GptOssConfig
