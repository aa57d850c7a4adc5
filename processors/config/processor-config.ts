import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as t from 'io-ts'
import { type Issues, invalid, validation } from '../../lib/error.js'
import type { ImageBackend } from '../image/image-backend.js'
import type { NormalizeOptions } from '../image/normalize.js'
import { RESAMPLE, type Size } from '../image/resize.js'
import type { TilingOptions } from '../image/tiling.js'
import type { SamplingOptions } from '../video/frame-sampling.js'
import { decode } from './decode-json.js'

/** Settings for tiling, resizing and normalizing images. */
export interface ImageConfig extends TilingOptions, NormalizeOptions {
  readonly doResize: boolean
}

/** Settings for sampling, resizing and normalizing video frames; each frame is one tile. */
export interface VideoConfig extends NormalizeOptions, SamplingOptions {
  readonly doResize: boolean
  readonly size: Size
  readonly resample: number
}

/** Settings from a checkpoint's processor files. */
export interface ProcessorConfig {
  readonly image: ImageConfig
  readonly video: VideoConfig
  /** Text with which the chat template marks an image, where it is not the token of image features. */
  readonly imagePlaceholder?: string | undefined
  /** Tokens per tile of `image.size`. */
  readonly imageSeqLength: number
}

/** The parsed JSON files of a checkpoint folder that configure its processor; absent files are `undefined`. */
export interface ProcessorFiles {
  readonly dir: string
  readonly config?: unknown
  readonly processor?: unknown
  readonly preprocessor?: unknown
  readonly videoPreprocessor?: unknown
}

// Source: `OPENAI_CLIP_MEAN`, `OPENAI_CLIP_STD` and the class defaults of `GotOcr2ImageProcessor` (transformers 5.24)
const CLIP = { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] }
// The default backend is torchvision for every class that a file names: Source: `AutoImageProcessor.from_pretrained` (transformers 5.24)
const DEFAULT_BACKEND: ImageBackend = 'torchvision'
const DEFAULTS = { size: { width: 384, height: 384 }, resample: RESAMPLE.bicubic, rescaleFactor: 1 / 255, ...CLIP }

// Source: `IMAGENET_MEAN`, `IMAGENET_STD` (OpenGVLab/InternVL, internvl/train/constants.py)
const IMAGENET = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }

const or = <C extends t.Mixed>(codec: C) => t.union([codec, t.null, t.undefined], `${codec.name} or null`)
/** A whole number from 1; each number of a file has the bound that its meaning sets, several times beyond the published models. */
const wholeTo = (most: number) =>
  t.refinement(t.number, (n) => Number.isInteger(n) && n > 0 && n <= most, `a whole number from 1 to ${most}`)
const side = wholeTo(16_384) // pixels
const tokens = wholeTo(65_536)
const patches = wholeTo(1024)
const frames = wholeTo(1_000_000)
const share = t.refinement(t.number, (n) => n > 0 && n <= 1, 'a number above 0 and at most 1')
const finite = t.refinement(t.number, Number.isFinite, 'a finite number')
const filter = t.refinement(t.number, (n) => Number.isInteger(n) && n >= 0 && n <= 5, "one of Pillow's filters, 0 to 5")
const perChannel = t.union([finite, t.refinement(t.array(finite), (a) => a.length === 3)], 'a number or three, one per channel')
const sizeCodec = t.union([side, t.type({ height: side, width: side })], '{"height", "width"} or one number')

const Section = t.partial(
  {
    size: or(sizeCodec),
    resample: or(filter),
    do_resize: or(t.boolean),
    do_rescale: or(t.boolean),
    rescale_factor: or(finite),
    do_normalize: or(t.boolean),
    image_mean: or(perChannel),
    image_std: or(perChannel),
    min_patches: or(patches),
    max_patches: or(patches),
    do_sample_frames: or(t.boolean),
    num_frames: or(frames),
    fps: or(finite),
    initial_shift: or(t.union([t.boolean, finite]))
  },
  'an object'
)
type Section = t.TypeOf<typeof Section>

const Processor = t.partial(
  {
    image_seq_length: or(tokens),
    image_processor: or(t.UnknownRecord),
    video_processor: or(t.UnknownRecord),
    image_placeholder_token: or(t.string),
    processor_class: or(t.string)
  },
  'an object'
)

const Original = t.intersection([
  t.type({ vision_config: t.intersection([t.type({ patch_size: side }), t.partial({ image_size: or(side) })]) }),
  t.partial({
    force_image_size: or(side),
    downsample_ratio: or(share),
    dynamic_image_size: or(t.boolean),
    use_thumbnail: or(t.boolean),
    min_dynamic_patch: or(patches),
    max_dynamic_patch: or(patches)
  })
])
type Original = t.TypeOf<typeof Original>

const perChannelOr = (value: number | readonly number[] | null | undefined, otherwise: readonly number[]): readonly number[] =>
  typeof value === 'number' ? [value, value, value] : (value ?? otherwise)

const sizeOf = (size: Section['size'], otherwise: Size): Size =>
  typeof size === 'number' ? { width: size, height: size } : (size ?? otherwise)

const pixelsOf = (s: Section, otherwise: typeof DEFAULTS) => ({
  size: sizeOf(s.size, otherwise.size),
  resample: s.resample ?? otherwise.resample,
  doResize: s.do_resize ?? true,
  doRescale: s.do_rescale ?? true,
  rescaleFactor: s.rescale_factor ?? otherwise.rescaleFactor,
  doNormalize: s.do_normalize ?? true,
  mean: perChannelOr(s.image_mean, otherwise.mean),
  std: perChannelOr(s.image_std, otherwise.std)
})

// InternVLProcessor always crops to patches and ignores `crop_to_patches` of the file
const imageOf = (s: Section, otherwise = DEFAULTS): ImageConfig => ({
  ...pixelsOf(s, otherwise),
  imageBackend: DEFAULT_BACKEND,
  cropToPatches: true,
  minPatches: s.min_patches ?? 1,
  maxPatches: s.max_patches ?? 12,
  useThumbnail: true
})

const videoOf = (s: Section, image: ImageConfig): VideoConfig => {
  const pixels = pixelsOf(s, DEFAULTS)
  // InternVL3.5-HF has 384 pixels and CLIP's mean for videos, which the model cannot read: all tiles have one size
  const isTileSize = pixels.size.width === image.size.width && pixels.size.height === image.size.height
  const { size, mean, std } = isTileSize ? pixels : image
  return {
    ...pixels,
    ...{ size, mean, std },
    doSampleFrames: s.do_sample_frames ?? false,
    numFrames: s.num_frames ?? undefined,
    fps: s.fps ?? undefined,
    initialShift: s.initial_shift ?? true
  }
}

const fromSections = (image: Section, video: Section, imageSeqLength: number): ProcessorConfig => {
  const config = imageOf(image)
  return { image: config, video: videoOf(video, config), imageSeqLength }
}

const fromOriginal = (c: Original, preprocessor: Section): ProcessorConfig => {
  const side = c.force_image_size ?? c.vision_config.image_size ?? 448
  const pixels = { ...DEFAULTS, ...IMAGENET, size: { width: side, height: side } }
  const { size: _, ...rest } = preprocessor
  const image: ImageConfig = {
    ...imageOf(rest, pixels),
    cropToPatches: c.dynamic_image_size ?? true,
    minPatches: c.min_dynamic_patch ?? 1,
    maxPatches: c.max_dynamic_patch ?? 12,
    useThumbnail: c.use_thumbnail ?? true
  }
  const imageSeqLength = Math.floor(Math.floor(side / c.vision_config.patch_size) ** 2 * (c.downsample_ratio ?? 0.5) ** 2)
  return { image, video: videoOf({ size: side, image_mean: [...image.mean], image_std: [...image.std] }, image), imageSeqLength }
}

const ORIGINAL_TYPES = ['internvl_chat', 'internvlu_chat', 'qianfanvl_chat']

/** Whether config.json has OpenGVLab's layout, which has no processor files. */
export const isOriginal = (config: unknown): boolean =>
  t.partial({ model_type: t.string, architectures: t.array(t.string) }).is(config) &&
  (ORIGINAL_TYPES.includes(config.model_type ?? '') ||
    (config.architectures?.includes('InternVLChatModel') ?? false) ||
    t.type({ llm_config: t.UnknownRecord }).is(config))

/** Source: `QianfanOCRProcessor` (transformers 5.24), whose templates mark images by another text than the token of image features. */
const placeholderOf = ({
  image_placeholder_token,
  processor_class
}: t.TypeOf<typeof Processor>): Pick<ProcessorConfig, 'imagePlaceholder'> => {
  const imagePlaceholder = image_placeholder_token ?? (processor_class === 'QianfanOCRProcessor' ? '<image>' : undefined)
  return imagePlaceholder === undefined ? {} : { imagePlaceholder }
}

const fromFiles = (
  { dir, config, preprocessor, videoPreprocessor }: ProcessorFiles,
  { image_processor, video_processor, image_seq_length, ...processor }: t.TypeOf<typeof Processor>
): E.Either<Issues, ProcessorConfig> => {
  const imageFile = image_processor ?? preprocessor
  const section = (nested: unknown, value: unknown, nestedName: string, fileName: string): E.Either<Issues, Section> =>
    decode(Section, value ?? {}, nested ? `${dir}/processor_config.json: ${nestedName}` : `${dir}/${fileName}.json`)
  const image = section(image_processor, imageFile, 'image_processor', 'preprocessor_config')
  if (!image_processor && isOriginal(config))
    return pipe(
      sequenceS(validation)({ original: decode(Original, config, `${dir}/config.json`), image }),
      E.map((sections) => fromOriginal(sections.original, sections.image))
    )
  if (imageFile === undefined)
    return invalid('NoProcessor', `${dir}: no processor_config.json with an image_processor and no preprocessor_config.json.`, {
      dir
    })
  const videoFile = video_processor ?? videoPreprocessor ?? imageFile
  const video = section(video_processor, videoFile, 'video_processor', 'video_preprocessor_config')
  return pipe(
    sequenceS(validation)({ image, video }),
    E.map((sections) => ({
      ...fromSections(sections.image, sections.video, image_seq_length ?? 256),
      ...placeholderOf(processor)
    }))
  )
}

/**
 * Processor settings from the files of a checkpoint: processor_config.json with nested sections; flat processor_config.json,
 * preprocessor_config.json and video_preprocessor_config.json; or config.json alone (OpenGVLab's layout).
 * Omitted settings have the defaults of Transformers' classes. Without a video section, videos use the image settings.
 */
export const decodeProcessorConfig = (files: ProcessorFiles): E.Either<Issues, ProcessorConfig> =>
  pipe(
    decode(Processor, files.processor ?? {}, `${files.dir}/processor_config.json`),
    E.chain((processor) => fromFiles(files, processor))
  )
