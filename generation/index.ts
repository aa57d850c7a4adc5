/** Text from a model: loading, answering, chat, decoding, evaluation, saving (`internvl-tfjs/generation`). */
export { type AnswerOptions, type Answers, answer, streamAnswers, type Timings } from './answer.js'
export { type Assembled, type AssembleOptions, assemble } from './assemble/assemble.js'
export { type ChatOptions, type ChatSession, chat, restoreChat, type SendOptions, type Turn } from './chat/chat.js'
export { restoreHistory, type SaveOptions, saveHistory } from './chat/history.js'
export { type ConvertCalibratedOptions, convertCalibrated } from './checkpoint/convert-calibrated.js'
export { type Inspection, inspect } from './checkpoint/inspect.js'
export { demoModel, type InternVLCheckpoint, type LoadOptions, load } from './checkpoint/load.js'
export type { PartsOption } from './checkpoint/part-modules.js'
export { type Replacement, replaceParts } from './checkpoint/replace-parts.js'
export { type ConvertOptions, convert, type SaveCheckpointOptions, save } from './checkpoint/save.js'
export {
  disposeCache,
  disposeResult,
  type GenerateInputs,
  type GenerationResult,
  generate,
  generateAll,
  type RowCache,
  type Step
} from './decoding/generate.js'
export { generationConfig, readGenerationConfig } from './decoding/generation-config.js'
export type { GenerateOptions, LogitsProcessor, StoppingCondition } from './decoding/generation-options.js'
export type { FinishReason } from './decoding/stopping.js'
export { streamText, type TextStream, textStream } from './decoding/text-stream.js'
export { synthIdBits } from './decoding/watermark/synth-id.js'
export {
  type WatermarkDetection,
  type WatermarkDetectorOptions,
  watermarkDetector
} from './decoding/watermark/watermark-detector.js'
export type { GreenListWatermark, SynthIdWatermark, WatermarkingConfig } from './decoding/watermark/watermarking-config.js'
export * from './deprecated.js'
export { type Embeddings, type EmbedOptions, embed, loadVisionEncoder, type VisionCheckpoint } from './embed.js'
export { createEngine } from './engine/create-engine.js'
export {
  EngineClosedError,
  EngineCrashedError,
  EngineError,
  EngineFailedError,
  QueueFullError
} from './engine/engine-errors.js'
export type {
  Choice,
  ChoiceEvent,
  CloseOptions,
  CreateEngineOptions,
  EngineEvent,
  EngineHandle,
  EngineInfo,
  EngineRequest,
  EngineResult,
  EngineState,
  EngineStats,
  EngineTimings,
  FinishedEvent,
  GenerationEngine,
  ImageVectors,
  MediaTiling,
  NamedProcessor,
  PrefixCacheSize,
  ProcessStats,
  PromptUsage,
  RequestOptions,
  StartedEvent,
  TokenEvent,
  Tokenized,
  TokenLogprob,
  Usage
} from './engine/engine-types.js'
export type { LogitsProcessorFactory } from './engine/process/named-processors.js'
export { type BestOfOptions, bestOf, type ScoredAnswer, type Scorer } from './evaluate/best-of.js'
export { choiceLikelihoods, type ScoredChoice } from './evaluate/choice-likelihood.js'
export { type ChangedRow, type Comparison, compareEvaluations, readEvaluation, type ScoreDifference } from './evaluate/compare.js'
export { type DatasetRow, readDataset } from './evaluate/eval-dataset.js'
export { type EvaluateOptions, type Evaluation, evaluate } from './evaluate/evaluate.js'
export type { EvaluatedRow, MetricChoice } from './evaluate/evaluated-row.js'
export { comparisonReport, evaluationReport } from './evaluate/evaluation-report.js'
export { type Count, type EvaluationSummary, summarize, type TaskScore } from './evaluate/evaluation-summary.js'
export { type BootstrapOptions, bootstrapInterval, type Interval } from './evaluate/metrics/bootstrap.js'
export { boxAccuracy, boxIou } from './evaluate/metrics/box-metrics.js'
export { type Metric, metricOf, metrics, type References } from './evaluate/metrics/metric.js'
export type { Choices } from './evaluate/metrics/multiple-choice.js'
export { type PairedTest, pairedTest } from './evaluate/metrics/paired-test.js'
export { anls, containsMatch, exactMatch, relaxedAccuracy } from './evaluate/metrics/text-metrics.js'
export { vqaAccuracy } from './evaluate/metrics/vqa-accuracy.js'
export {
  type AnswerLogits,
  answerLogits,
  answerLosses,
  answerPerplexity,
  type Perplexity,
  perplexityOf
} from './evaluate/perplexity.js'
export { type ProcessRewardOptions, processRewardScorer, processRewards } from './evaluate/process-reward.js'
export { type ExplainedPart, type ExplainOptions, type Explanation, explain } from './explain/explain.js'
export { heatImage, heatPng, heatStrip } from './explain/heat-image.js'
export { type ExplainMethod, explainMethods } from './explain/methods.js'
export { type FeatureCache, type FeatureCacheOptions, featureCache } from './feature-cache.js'
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
export { type MachineSpeed, measureSpeed } from './plan/machine-speed.js'
export { type Plan, type PlanOptions, type PrecisionPlan, plan, type TrainingPlan } from './plan/plan.js'
export { linePlot, linePlots, type Panel, type PlotLabels, type Series } from './plot.js'
export type { JsonSchema, ResponseFormat, ResponseOptions, StandardSchema } from './structured/response-format.js'
