/** Tensors, modules, parameter trees, layers, gradients, safetensors files and engines; independent of InternVL. */

export { checkpointed } from './autograd/checkpointing.js'
export { accumulate, type ValueAndGrad, valueAndGrad, valueGradAndAux } from './autograd/grad.js'
export { type TrainingOptions, training } from './autograd/train-mode.js'
export * from './deprecated.js'
export { type FloatDtype, fromFloat32, type StoredDtype, toFloat32 } from './dtype.js'
export { type Engine, type EngineName, type EngineOptions, engineNames, selectEngine } from './engines/index.js'
export { getOrThrow, InputError, InternVLError, type Issue, type Issues, issue, orThrow } from './error.js'
export { type Bound, type Children, identity, type Module, module, type Param, type Params, repeat } from './module.js'
export { type Activation, activations, gated, gelu, geluTanh, quickGelu, silu } from './nn/activation.js'
export {
  type AttentionMaskOptions,
  attend,
  attendMerged,
  attentionWeights,
  mergeHeads,
  paddingMask,
  splitHeads
} from './nn/attention/attention.js'
export { type AttentionOptions, attendCached, type CachedAttentionOptions } from './nn/attention/cached-attention.js'
export { type KVCacheType, kvCacheTypes, type LayerCache, layerCache } from './nn/attention/kv-cache.js'
export {
  type AttentionContext,
  type AttentionOutput,
  type AttentionProjections,
  attentionWeightsChild,
  type SelfAttention,
  selfAttention
} from './nn/attention/self-attention.js'
export { conv2dPatches } from './nn/conv.js'
export { dropout, dropPath } from './nn/dropout.js'
export { type Embedding, embedding } from './nn/embedding.js'
export { type ExpertRouting, loadBalancingLoss, mixtureOfExperts, topK } from './nn/experts.js'
export { type DecoderLayer, type FeedForward, fuseLayer, type MoeOutput } from './nn/fusion/fuse-layer.js'
export { type GatedLinearUnit, type GatedProjections, gatedLinearUnit } from './nn/gated-linear-unit.js'
export { constant, normal, ones, zeros } from './nn/init.js'
export { resizeGrid } from './nn/interpolate.js'
export { affine, type Linear, type LinearOptions, type LoraWeight, linear, type OnLastAxis, type Weight } from './nn/linear.js'
export {
  causalLoss,
  crossEntropy,
  logProbabilities,
  type Reduction,
  reductionWeights,
  tokenLosses
} from './nn/losses/cross-entropy.js'
export {
  bcoLoss,
  dpo,
  dpoLoss,
  initialRewardMean,
  mpo,
  type PreferenceLoss,
  type PreferenceOptions,
  type PreferencePair,
  preferenceLoss,
  type RunningRewardMean
} from './nn/losses/preference.js'
export { layerNorm, noNorm, type RmsNorm, rmsNorm } from './nn/norm.js'
export { residual } from './nn/residual.js'
export { applyRope, type RopeParameters, type RopeTables, ropeFrequencies, ropeTables } from './nn/rope.js'
export {
  type AdamWOptions,
  type AdamWState,
  adamW,
  clipByGlobalNorm,
  clipFactor,
  exceptNormsAndBiases,
  globalNorm,
  type Optimizer,
  type UpdateOptions
} from './optim/adamw.js'
export { type Schedule, type ScheduleName, type ScheduleOptions, schedules } from './optim/schedule.js'
export {
  buildParams,
  combine,
  countParameters,
  declarations,
  disposeParams,
  fromStateDict,
  initParams,
  mapParams,
  namedParameters,
  partition,
  type StateDict,
  stateDict
} from './params.js'
export {
  dequantize,
  type QuantizationFormat,
  type QuantizedWeight,
  quantizationFormats,
  quantize,
  type StoredWeight
} from './quantization/formats.js'
export { replaceModules } from './replace-modules.js'
export { openCheckpointTensors, openSafetensors, type TensorEntry, type TensorFiles } from './safetensors/read.js'
export { type TensorSource, writeCheckpointTensors, writeSafetensors } from './safetensors/write.js'
export { expectShape, ShapeError } from './shape.js'
export { type Recorder, record } from './tap/record.js'
export { type Rebindable, type Tap, type TapContext, type Taps, type TapsHolder, tap } from './tap/tap.js'
export { tf } from './tf.js'
