/** InternVL as modules, its configuration, and its checkpoint folders. */
export { adapterBase, loadAdapter, saveAdapter } from './adapter.js'
export type { Layout } from './checkpoint-keys.js'
export { type InternVLConfig, parseConfig, readConfig, type TextConfig, type VisionConfig } from './config.js'
export { cacheLength, type Decoder, type DecoderOptions, type DecoderOutput, type KVCache } from './decoders/decoder.js'
export { decoderFor } from './decoders/index.js'
export { type InspectedModel, type InspectedNode, inspectModel } from './inspect.js'
export {
  type InternVL,
  type InternVLInputs,
  type InternVLOptions,
  type InternVLOutput,
  internVL,
  mergeFeatures
} from './internvl.js'
export { visionLayerDecay } from './layer-decay.js'
export { type InternVLModule, type InternVLParams, type LoadedModel, type LoadModelOptions, loadModel } from './load.js'
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
} from './lora.js'
export { type Dtype, dtypes, type PrecisionOptions, type Quantization, quantizations } from './precision.js'
export { pixelShuffle, projector } from './projector.js'
export { type SaveModelOptions, saveModel, type WeightType } from './save.js'
export { poolVision, type VisionOptions, type VisionOutput, visionTower } from './vision.js'
export { type LoadedVision, loadVision, type VisionEncoder, visionEncoder } from './vision-encoder.js'
export { visualDeltas, visualPositions } from './visual-positions.js'
