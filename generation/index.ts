/** The whole package: everything of `lib`, `models` and `processors`, and generation on top. */
export * from '../lib/index.js'
export * from '../models/index.js'
export { drawBoxes, drawOn, encodePng, type LabelledBox, writePicture } from '../processors/image/draw.js'
export * from '../processors/index.js'
export { type AnswerOptions, type Answers, answer, streamAnswers, type Timings } from './answer.js'
export { type ChatOptions, type ChatSession, chat, restoreChat, type SendOptions, type Turn } from './chat/chat.js'
export { restoreHistory, type SaveOptions, saveHistory } from './chat/history.js'
export { type Inspection, inspect } from './checkpoint/inspect.js'
export { demoModel, type InternVLCheckpoint, type LoadOptions, load } from './checkpoint/load.js'
export { type ConvertOptions, convert, type SaveCheckpointOptions, save } from './checkpoint/save.js'
export {
  disposeCache,
  type GenerateInputs,
  type GenerationResult,
  generate,
  generateAll,
  type RowCache,
  type Step
} from './decoding/generate.js'
export { generationConfig, readGenerationConfig } from './decoding/generation-config.js'
export type { GenerateOptions } from './decoding/generation-options.js'
export type { LogitsProcessor, StoppingCondition } from './decoding/step.js'
export type { FinishReason } from './decoding/stopping.js'
export { streamText, type TextStream, textStream } from './decoding/text-stream.js'
export { type Embedded, type EmbedOptions, embed, loadEyes, type VisionCheckpoint } from './embed.js'
export { type BestOfOptions, bestOf, type ScoredAnswer, type Scorer } from './evaluate/best-of.js'
export { type DatasetRow, readDataset } from './evaluate/eval-dataset.js'
export {
  type AnswerLogits,
  answerLogits,
  answerLosses,
  answerPerplexity,
  type Perplexity,
  perplexityOf
} from './evaluate/perplexity.js'
export { type ProcessRewardOptions, processRewardScorer, processRewards } from './evaluate/process-reward.js'
export { type FeatureCache, type FeatureCacheOptions, featureCache, featuresOf } from './feature-cache.js'
export {
  type Corners,
  type Grounding,
  groundedText,
  type ParsedGrounding,
  parseGrounding,
  renderGrounding,
  toPixels
} from './grounding.js'
export { type ImageTextToTextPipeline, type PipelineOptions, type PipelineOutput, pipeline } from './pipeline.js'
export type { ManyInputs, OneInput, TextInput } from './pipeline-input.js'
export { linePlot, linePlots, type Panel, type PlotLabels, type Series } from './plot.js'
export { type Batch, type BatchOptions, batchOf, disposeBatch, padIdOf } from './train/data/collate.js'
export {
  type DatasetEntry,
  epochRows,
  readMeta,
  readTraining,
  type TrainingData,
  type TrainingRow
} from './train/data/mixture.js'
export { type PackedBatch, type PackedBatchOptions, type PackOptions, packedBatchOf, packRows } from './train/data/packing.js'
export { type Prefetched, type PrefetchOptions, prefetch } from './train/data/prefetch.js'
export type { Prepared, Recipe } from './train/data/prepare.js'
export {
  measure,
  type Preference,
  preferenceOf,
  type Sample,
  type SampleOptions,
  type SampleSize,
  sampleOf
} from './train/data/sample.js'
export { endless, lengthGroupedOrder, type Place, shuffledOrder } from './train/data/sampler.js'
export { type FineTuneOptions, fineTune } from './train/fine-tune.js'
export { type MergeOptions, merge } from './train/merge.js'
export { bestCheckpoint, lastCheckpoint, loadCheckpoint, saveCheckpoint } from './train/train-checkpoint.js'
export { readTrainConfig, type TrainConfig, trainConfig } from './train/train-config.js'
export { type Listener, type RunOptions, run } from './train/trainer.js'
export {
  type Batches,
  initialState,
  type Loss,
  type StepReport,
  type TrainOptions,
  type TrainState,
  train
} from './train/training-loop.js'
export {
  type ApplyChatTemplateOptions,
  AutoModelForImageTextToText,
  AutoProcessor,
  type BaseStreamer,
  type BatchFeature,
  type CausalInputs,
  type CausalOutput,
  type ConfigFields,
  type ForwardInputs,
  type GenerateArguments,
  InternVLConfig,
  InternVLForConditionalGeneration,
  InternVLModel,
  InternVLProcessor,
  InternVLVideoProcessor,
  InternVLVisionConfig,
  InternVLVisionModel,
  type ModelOutput,
  TextStreamer,
  type TextStreamerOptions,
  type VideoFeature,
  type VisionInputs,
  type VisionModelOutput
} from './transformers/index.js'
export type { BitsAndBytesConfig, PretrainedOptions } from './transformers/pretrained.js'
