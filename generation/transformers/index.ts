/** The classes of Hugging Face Transformers; each is a thin wrapper of the functions of this package. */
export {
  AutoModelForImageTextToText,
  type CausalInputs,
  type CausalOutput,
  type GenerateArguments,
  InternVLForConditionalGeneration
} from './conditional-generation.js'
export {
  type BitsAndBytesConfig,
  type ConfigFields,
  InternVLConfig,
  InternVLVisionConfig,
  type PretrainedOptions
} from './config-classes.js'
export {
  type ForwardInputs,
  InternVLModel,
  InternVLVisionModel,
  type ModelOutput,
  type VisionInputs,
  type VisionModelOutput
} from './model-classes.js'
export { type ApplyChatTemplateOptions, AutoProcessor, type BatchFeature, InternVLProcessor } from './processor-classes.js'
export { type BaseStreamer, TextStreamer, type TextStreamerOptions } from './streamer.js'
export { InternVLVideoProcessor, type VideoFeature } from './video-processor.js'
