/** InternVL as modules, its configuration, and its checkpoint folders. */

export { type InspectedModel, type InspectedNode, inspectModel } from './checkpoint/inspect-model.js'
export type { KeyRule, KeyTemplates, Layout } from './checkpoint/keys.js'
export { type InternVLParams, type LoadedModel, type LoadModelOptions, loadModel } from './checkpoint/load-model.js'
export { type SaveModelOptions, saveModel, type WeightType } from './checkpoint/save-model.js'
export {
  type CustomPart,
  type CustomParts,
  type DecoderConfig,
  type InternVLConfig,
  type PartFamily,
  parseConfig,
  readConfig,
  type TextConfig,
  type VisionConfig
} from './config/parse-config.js'
export {
  type AttentionContext,
  cacheLength,
  type Decoder,
  type DecoderLayer,
  type DecoderOptions,
  type DecoderOutput,
  decoder,
  decoderLayer,
  type FeedForward,
  type Hidden,
  type KVCache,
  type MoeOutput,
  type SelfAttention,
  selfAttention,
  slidingWindowOf
} from './decoders/decoder.js'
export type { DecoderFamily } from './decoders/decoder-family.js'
export type {
  AttentionParams,
  DecoderLayerParams,
  DecoderParams,
  GatedMlpParams,
  LinearParams,
  RmsNormParams
} from './decoders/decoder-params.js'
export { type DecoderModule, decoderFamilyOf, decoderFor, decoders } from './decoders/index.js'
export { gatedMlp, qwen2Attention } from './decoders/qwen2.js'
export { qwen3Attention } from './decoders/qwen3.js'
export * from './deprecated.js'
export { families, familyOf, modelFor, partOfPath } from './families.js'
export type { FlashEncoder, FlashThresholds } from './internvl/flash/tile-features.js'
export {
  type InternVL,
  type InternVLInputs,
  type InternVLOptions,
  type InternVLOutput,
  internVL,
  mergeFeatures
} from './internvl/internvl.js'
export { visionLayerDecay } from './internvl/layer-decay.js'
export { pixelShuffle, projector } from './internvl/projector.js'
export { visualDeltas, visualPositions } from './internvl/v2pe.js'
export {
  poolVision,
  type VisionHidden,
  type VisionOptions,
  type VisionOutput,
  visionAttention,
  visionEmbeddings,
  visionLayer,
  visionMlp,
  visionTower
} from './internvl/vision.js'
export { type LoadedVision, loadVision, type VisionEncoder, visionEncoder } from './internvl/vision-encoder.js'
export type { VisionFamily } from './internvl/vision-family.js'
export { visionTowerFor, visionTowers } from './internvl/vision-towers.js'
export { adapterBase, adapterUntiesHead, loadAdapter, type SaveAdapterOptions, saveAdapter } from './lora/adapter.js'
export {
  addLora,
  attachLora,
  isLoraPath,
  type LoraOptions,
  type LoraParts,
  linearLayers,
  loraLeaves,
  loraWeights,
  mergeLora,
  mergeLoraInPlace,
  type Shapes,
  shapesWithoutLora,
  withoutLora
} from './lora/lora.js'
export { untied } from './lora/untied.js'
export type { ConfigDialect, InternVLModule, ModelFamily, ModelParts } from './model-family.js'
export {
  type Dtype,
  dtypes,
  type PrecisionOptions,
  type Quantization,
  type QuantizationName,
  quantizations
} from './quantization/precision.js'
