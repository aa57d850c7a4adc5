/** Training: data, collating, the training loop, fine-tuning, checkpoints and adapters merged into their model (`internvl-tfjs/train`). */
export { type Batch, type BatchOptions, batchOf, disposeBatch, padIdOf } from './data/collate.js'
export {
  type DatasetEntry,
  epochRows,
  readMeta,
  readTraining,
  type TrainingData,
  type TrainingRow
} from './data/mixture.js'
export { type PackedBatch, type PackedBatchOptions, type PackOptions, packedBatchOf, packRows } from './data/packing.js'
export { type Prefetched, type PrefetchOptions, prefetch } from './data/prefetch.js'
export type { Prepared, Recipe } from './data/prepare.js'
export {
  measure,
  type Preference,
  preferenceOf,
  type Sample,
  type SampleOptions,
  type SampleSize,
  sampleOf
} from './data/sample.js'
export { endless, lengthGroupedOrder, type Place, shuffledOrder } from './data/sampler.js'
export { type FineTuneOptions, fineTune } from './fine-tune.js'
export { type MergeOptions, merge } from './merge.js'
export { bestCheckpoint, lastCheckpoint, loadCheckpoint, saveCheckpoint } from './train-checkpoint.js'
export { readTrainConfig, type TrainConfig, trainConfig } from './train-config.js'
export { type Listener, type RunOptions, run } from './trainer.js'
export {
  type Batches,
  initialState,
  type Loss,
  type StepReport,
  type TrainOptions,
  type TrainState,
  train
} from './training-loop.js'
