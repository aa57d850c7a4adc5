/** Tensors, modules, parameter trees, layers, gradients, checkpoint files and engines; nothing of InternVL. */

export { accumulate, type ValueAndGrad, valueAndGrad, valueGradAndAux } from './autograd/grad.js'
export { type FloatDtype, fromFloat32, type StoredDtype, toFloat32 } from './dtype.js'
export { type Engine, type EngineName, type EngineOptions, engineNames, selectEngine } from './engines/index.js'
export { getOrThrow, InternVLError, type Issue, type Issues, issue, orThrow } from './error.js'
export { type Bound, type Children, identity, type Module, module, type Param, type Params, repeat } from './module.js'
export { type Activation, activations, gelu, geluTanh, quickGelu, silu } from './nn/activation.js'
export { attend, mergeHeads, paddingMask, splitHeads, type Visibility } from './nn/attention.js'
export { conv2dPatches } from './nn/conv.js'
export { type Embedding, embedding } from './nn/embedding.js'
export { constant, normal, ones, zeros } from './nn/init.js'
export { resizeGrid } from './nn/interpolate.js'
export { affine, linear, type OnLastAxis } from './nn/linear.js'
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
  mpo,
  noRewards,
  type PairLogs,
  type Preference,
  type PreferenceOptions,
  preferenceLoss,
  type RewardShift
} from './nn/losses/preference.js'
export { layerNorm, noNorm, rmsNorm } from './nn/norm.js'
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
export { openCheckpointTensors, openSafetensors, type TensorEntry, type TensorFiles } from './safetensors/read.js'
export { type TensorSource, writeCheckpointTensors, writeSafetensors } from './safetensors/write.js'
export { expectShape, ShapeError } from './shape.js'
export { tf } from './tf.js'
