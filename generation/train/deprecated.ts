/** Names of this package's exports before version 0.2. */
export {
  /** @deprecated Use `collate`. */
  collate as batchOf
} from './data/collate.js'
export {
  /** @deprecated Use `MixtureEntry`. */
  type MixtureEntry as DatasetEntry,
  /** @deprecated Use `readMixture`. */
  readMixture as readMeta,
  /** @deprecated Use `readTrainingData`. */
  readTrainingData as readTraining
} from './data/mixture.js'
export {
  /** @deprecated Use `collatePacked`. */
  collatePacked as packedBatchOf
} from './data/packing.js'
export {
  /** @deprecated Use `encodePreference`. */
  encodePreference as preferenceOf,
  /** @deprecated Use `encodeSample`. */
  encodeSample as sampleOf,
  /** @deprecated Use `sampleSize`. */
  sampleSize as measure
} from './data/sample.js'
export type {
  /** @deprecated Use `PreparedSample`. */
  PreparedSample as Prepared,
  /** @deprecated Use `SampleSpec`. */
  SampleSpec as Recipe
} from './data/sample-maker.js'
export {
  /** @deprecated Use `endlessSampler`. */
  endlessSampler as endless,
  /** @deprecated Use `lengthGroupedIndices`. */
  lengthGroupedIndices as lengthGroupedOrder,
  /** @deprecated Use `SamplerPosition`. */
  type SamplerPosition as Place,
  /** @deprecated Use `shuffledIndices`. */
  shuffledIndices as shuffledOrder
} from './data/sampler.js'
export {
  /** @deprecated Use `runTrainer`, whose options have new names: see `TrainerOptions`. */
  runTrainer as run,
  /** @deprecated Use `TrainerCallback`. */
  type TrainerCallback as Listener,
  /** @deprecated Use `TrainerOptions`. */
  type TrainerOptions as RunOptions
} from './trainer.js'
