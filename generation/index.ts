/** The whole package: everything of `lib`, `models` and `processors`, and generation on top. */
export * from '../lib/index.js'
export * from '../models/index.js'
export { drawBoxes, drawOn, encodePng, type LabelledBox, writePicture } from '../processors/draw.js'
export * from '../processors/index.js'
export { type AnswerOptions, type Answers, answer, streamAnswers, type Timings } from './answer.js'
export { type BestOfOptions, bestOf, type ScoredAnswer, type Scorer } from './best-of.js'
export { type ChatOptions, type ChatSession, chat, restoreChat, type SendOptions, type Turn } from './chat.js'
export { generationConfig, readGenerationConfig } from './config.js'
export { type DatasetRow, readDataset } from './dataset.js'
export { type Embedded, type EmbedOptions, embed, loadEyes, type VisionCheckpoint } from './embed.js'
export { type FeatureCache, type FeatureCacheOptions, featureCache, featuresOf } from './features.js'
export {
  disposeCache,
  type GenerateInputs,
  type GenerationResult,
  generate,
  generateAll,
  type RowCache,
  type Step
} from './generate.js'
export {
  type Corners,
  type Grounding,
  groundedText,
  type ParsedGrounding,
  parseGrounding,
  renderGrounding,
  toPixels
} from './grounding.js'
export { restoreHistory, type SaveOptions, saveHistory } from './history.js'
export { type Inspection, inspect } from './inspect.js'
export { demoModel, type InternVLCheckpoint, type LoadOptions, load } from './load.js'
export type { GenerateOptions } from './options.js'
export { type AnswerLogits, answerLogits, answerLosses, answerPerplexity, type Perplexity, perplexityOf } from './perplexity.js'
export { type ImageTextToTextPipeline, type PipelineOptions, type PipelineOutput, pipeline } from './pipeline.js'
export type { ManyInputs, OneInput, TextInput } from './pipeline-input.js'
export { linePlot, linePlots, type Panel, type PlotLabels, type Series } from './plot.js'
export type { BitsAndBytesConfig, PretrainedOptions } from './pretrained.js'
export { type ProcessRewardOptions, processRewardScorer, processRewards } from './process-reward.js'
export { type ConvertOptions, convert, type SaveCheckpointOptions, save } from './save.js'
export type { LogitsProcessor, StoppingCondition } from './step.js'
export type { FinishReason } from './stop.js'
export { streamText, type TextStream, textStream } from './text-stream.js'
export { type Batch, type BatchOptions, batchOf, disposeBatch, padIdOf } from './train/batch.js'
export { bestCheckpoint, lastCheckpoint, loadCheckpoint, saveCheckpoint } from './train/checkpoint.js'
export { readTrainConfig, type TrainConfig, trainConfig } from './train/config.js'
export { type FineTuneOptions, fineTune } from './train/fine-tune.js'
export {
  type Batches,
  initialState,
  type Loss,
  type StepReport,
  type TrainOptions,
  type TrainState,
  train
} from './train/loop.js'
export { type MergeOptions, merge } from './train/merge.js'
export { type DatasetEntry, epochRows, readMeta, readTraining, type TrainingData, type TrainingRow } from './train/meta.js'
export { endless, lengthGroupedOrder, type Place, shuffledOrder } from './train/order.js'
export { type PackedBatch, type PackedBatchOptions, type PackOptions, packedBatchOf, packRows } from './train/pack.js'
export { type Prefetched, type PrefetchOptions, prefetch } from './train/prefetch.js'
export type { Prepared, Recipe } from './train/prepare.js'
export { type Listener, type RunOptions, run } from './train/run.js'
export {
  measure,
  type Preference,
  preferenceOf,
  type Sample,
  type SampleOptions,
  type SampleSize,
  sampleOf
} from './train/sample.js'
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
