/** InternVL as modules, its configuration, and its checkpoint folders. */

export { type InspectedModel, type InspectedNode, inspectModel } from './checkpoint/inspect-model.js'
export type { Layout } from './checkpoint/keys.js'
export {
  type InternVLModule,
  type InternVLParams,
  type LoadedModel,
  type LoadModelOptions,
  loadModel
} from './checkpoint/load-model.js'
export { type SaveModelOptions, saveModel, type WeightType } from './checkpoint/save-model.js'
export { type InternVLConfig, parseConfig, readConfig, type TextConfig, type VisionConfig } from './config/parse-config.js'
export { cacheLength, type Decoder, type DecoderOptions, type DecoderOutput, type KVCache } from './decoders/decoder.js'
export { decoderFor } from './decoders/index.js'
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
export { poolVision, type VisionOptions, type VisionOutput, visionTower } from './internvl/vision.js'
export { type LoadedVision, loadVision, type VisionEncoder, visionEncoder } from './internvl/vision-encoder.js'
export { adapterBase, loadAdapter, saveAdapter } from './lora/adapter.js'
export {
  absorbLora,
  addLora,
  attachLora,
  isLoraPath,
  type LoraOptions,
  type LoraParts,
  linearModules,
  loraParts,
  loraWeights,
  mergeLora,
  plainShapes,
  type Shapes,
  withoutLora
} from './lora/lora.js'
export { type Dtype, dtypes, type PrecisionOptions, type Quantization, quantizations } from './quantization/precision.js'
