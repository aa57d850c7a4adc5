/** Training: data, collating, the training loop, fine-tuning, checkpoints and adapters merged into their model (`internvl-tfjs/train`). */

export { type JoinOptions, joinWorkers, type WorkerGroup } from '../../lib/distributed/index.js'
export { type Batch, type BatchOptions, collate, disposeBatch, padIdOf } from './data/collate.js'
export {
  epochRows,
  type MixtureEntry,
  readMixture,
  readTrainingData,
  type TrainingData,
  type TrainingRow
} from './data/mixture.js'
export { collatePacked, type PackedBatch, type PackedBatchOptions, type PackOptions, packRows } from './data/packing.js'
export { type Prefetched, type PrefetchOptions, prefetch } from './data/prefetch.js'
export {
  encodePreference,
  encodeSample,
  type Preference,
  type Sample,
  type SampleOptions,
  type SampleSize,
  sampleSize
} from './data/sample.js'
export type { PreparedSample, SampleSpec } from './data/sample-maker.js'
export { endlessSampler, lengthGroupedIndices, type SamplerPosition, shuffledIndices } from './data/sampler.js'
export * from './deprecated.js'
export { type FineTuneOptions, fineTune } from './fine-tune.js'
export { type MergeOptions, merge } from './merge.js'
export type { Parallel } from './parallel/data-parallel.js'
export type { SharedSizes } from './parallel/fine-tune-together.js'
export { type WorkerShare, workerShare } from './parallel/worker-share.js'
export { bestCheckpoint, lastCheckpoint, loadCheckpoint, saveCheckpoint } from './train-checkpoint.js'
export { readTrainConfig, type TrainConfig, trainConfig } from './train-config.js'
export { runTrainer, type TrainerCallback, type TrainerOptions } from './trainer.js'
export {
  type Batches,
  initialState,
  type Loss,
  type StepReport,
  type TrainOptions,
  type TrainState,
  train
} from './training-loop.js'
