/** The whole package: everything of `lib`, `models` and `processors`, and generation on top. */
export * from '../lib/index.js'
export * from '../models/index.js'
export * from '../processors/index.js'
export { type AnswerOptions, type Answers, answer, streamAnswers, type Timings } from './answer.js'
export { generationConfig, readGenerationConfig } from './config.js'
export { type DatasetRow, readDataset } from './dataset.js'
export {
  disposeCache,
  type GenerateInputs,
  type GenerationResult,
  generate,
  generateAll,
  type RowCache,
  type Step
} from './generate.js'
export { demoModel, type InternVLCheckpoint, type LoadOptions, load } from './load.js'
export type { GenerateOptions } from './options.js'
export { streamText, type TextStream, textStream } from './text-stream.js'
