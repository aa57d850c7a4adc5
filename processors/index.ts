/** Images, videos and messages to tensors, and ids to text. */

export * from './deprecated.js'
export { drawBoxes, drawOn, encodePng, type LabelledBox, writeImageFile } from './image/draw.js'
export { type ImageSource, type RawImage, readImage } from './image/image.js'
export { IMAGE_BACKENDS, type ImageBackend } from './image/image-backend.js'
export { RESAMPLE, type Rgb, resize, resizeTorchvision, type Size } from './image/resize.js'
export { bestGrid, countTiles, supportedGrids } from './image/tiling.js'
export { type MediaPolicy, serverMediaPolicy } from './media/media-policy.js'
export type { ModelInputs } from './model-inputs.js'
export {
  type EncodedBatch,
  type EncodedConversation,
  type LoadProcessorOptions,
  loadProcessor,
  type PrepareOptions,
  type Processor,
  type Prompt,
  type RenderedInputs
} from './processor.js'
export type { ImageOptions, VideoOptions } from './processor-options.js'
export type {
  ContentItem,
  ContentMessage,
  ImageItem,
  Message,
  Messages,
  Role,
  TextItem,
  ToolCallMessage,
  VideoItem
} from './text/messages.js'
export type { Tokenizer } from './text/tokenizer.js'
export { frameIndices } from './video/frame-sampling.js'
