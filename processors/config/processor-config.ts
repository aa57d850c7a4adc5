import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import type { Issues } from '../../lib/error.js'
import { collect, decode, invalid } from '../collect.js'
import type { NormalizeOptions } from '../image/normalize.js'
import { RESAMPLE, type Size } from '../image/resize.js'
import type { TilingOptions } from '../image/tiling.js'
import type { SamplingOptions } from '../video/video.js'

/** How pictures become tiles and numbers. */
export interface ImageConfig extends TilingOptions, NormalizeOptions {
  readonly doResize: boolean
}

/** How frames become numbers, one tile a frame, and which frames are taken. */
export interface VideoConfig extends NormalizeOptions, SamplingOptions {
  readonly doResize: boolean
  readonly size: Size
  readonly resample: number
}

/** The numbers of a checkpoint's processor files. */
export interface ProcessorConfig {
  readonly image: ImageConfig
  readonly video: VideoConfig
  /** Tokens that stand for one tile of `image.size`. */
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

// Source: `OPENAI_CLIP_MEAN`, `OPENAI_CLIP_STD` and the class defaults of `GotOcr2ImageProcessor` (transformers 5.23)
const CLIP = { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] }
const DEFAULTS = { size: { width: 384, height: 384 }, resample: RESAMPLE.bicubic, rescaleFactor: 1 / 255, ...CLIP }

// Source: `IMAGENET_MEAN`, `IMAGENET_STD` (OpenGVLab/InternVL, internvl/train/constants.py)
const IMAGENET = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }

const or = <C extends t.Mixed>(codec: C) => t.union([codec, t.null, t.undefined], `${codec.name} or null`)
const positive = t.refinement(t.number, (n) => Number.isInteger(n) && n > 0, 'a whole number above 0')
const filter = t.refinement(t.number, (n) => Number.isInteger(n) && n >= 0 && n <= 5, "one of Pillow's filters, 0 to 5")
const perChannel = t.union([t.number, t.refinement(t.array(t.number), (a) => a.length === 3)], 'a number or three, one a channel')
const sizeCodec = t.union([positive, t.type({ height: positive, width: positive })], '{"height", "width"} or one number')

const Section = t.partial(
  {
    size: or(sizeCodec),
    resample: or(filter),
    do_resize: or(t.boolean),
    do_rescale: or(t.boolean),
    rescale_factor: or(t.number),
    do_normalize: or(t.boolean),
    image_mean: or(perChannel),
    image_std: or(perChannel),
    min_patches: or(positive),
    max_patches: or(positive),
    do_sample_frames: or(t.boolean),
    num_frames: or(positive),
    fps: or(t.number),
    initial_shift: or(t.union([t.boolean, t.number]))
  },
  'an object'
)
type Section = t.TypeOf<typeof Section>

const Processor = t.partial(
  { image_seq_length: or(positive), image_processor: or(t.UnknownRecord), video_processor: or(t.UnknownRecord) },
  'an object'
)

const Original = t.intersection([
  t.type({ vision_config: t.intersection([t.type({ patch_size: positive }), t.partial({ image_size: or(positive) })]) }),
  t.partial({
    force_image_size: or(positive),
    downsample_ratio: or(t.number),
    dynamic_image_size: or(t.boolean),
    use_thumbnail: or(t.boolean),
    min_dynamic_patch: or(positive),
    max_dynamic_patch: or(positive)
  })
])
type Original = t.TypeOf<typeof Original>

const three = (value: number | readonly number[] | null | undefined, otherwise: readonly number[]): readonly number[] =>
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
  mean: three(s.image_mean, otherwise.mean),
  std: three(s.image_std, otherwise.std)
})

// InternVLProcessor crops to patches whatever its image processor's file says
const imageOf = (s: Section, otherwise = DEFAULTS): ImageConfig => ({
  ...pixelsOf(s, otherwise),
  cropToPatches: true,
  minPatches: s.min_patches ?? 1,
  maxPatches: s.max_patches ?? 12,
  useThumbnail: true
})

const videoOf = (s: Section, image: ImageConfig): VideoConfig => {
  const pixels = pixelsOf(s, DEFAULTS)
  // InternVL3.5-HF ships 384 pixels and CLIP's mean for films, which the model cannot see: a tile has one size
  const usable = pixels.size.width === image.size.width && pixels.size.height === image.size.height
  const { size, mean, std } = usable ? pixels : image
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

/** Whether config.json is of OpenGVLab's first layout, which has no processor files. */
export const isOriginal = (config: unknown): boolean =>
  t.partial({ model_type: t.string, architectures: t.array(t.string) }).is(config) &&
  (config.model_type === 'internvl_chat' || (config.architectures?.includes('InternVLChatModel') ?? false))

/**
 * The processor's numbers, from whichever files the checkpoint has: processor_config.json with nested sections; that flat,
 * beside preprocessor_config.json and video_preprocessor_config.json; or config.json alone (OpenGVLab's first layout).
 * What the files leave out is Transformers' class default. A film without a section of its own is prepared as pictures are.
 */
export const decodeProcessorConfig = (files: ProcessorFiles): E.Either<Issues, ProcessorConfig> => {
  const { dir, config, preprocessor, videoPreprocessor } = files
  const processor = decode(Processor, files.processor ?? {}, `${dir}/processor_config.json`)
  if (E.isLeft(processor)) return processor
  const { image_processor, video_processor, image_seq_length } = processor.right
  const imageFile = image_processor ?? preprocessor
  const section = (value: unknown, nested: unknown, name: string): E.Either<Issues, Section> =>
    decode(Section, value ?? {}, nested ? `${dir}/processor_config.json: ${name}` : `${dir}/${name}.json`)
  const image = section(imageFile, image_processor, image_processor ? 'image_processor' : 'preprocessor_config')
  if (!image_processor && isOriginal(config)) {
    const original = decode(Original, config, `${dir}/config.json`)
    return E.isLeft(original) ? original : E.isLeft(image) ? image : E.right(fromOriginal(original.right, image.right))
  }
  if (imageFile === undefined)
    return invalid('NoProcessor', `${dir}: no processor_config.json with an image_processor and no preprocessor_config.json.`, {
      dir
    })
  const videoFile = video_processor ?? videoPreprocessor
  const video = section(
    videoFile ?? imageFile,
    video_processor,
    video_processor ? 'video_processor' : 'video_preprocessor_config'
  )
  const sections = collect([image, video])
  return E.map(([i, v]: readonly Section[]) => fromSections(i!, v!, image_seq_length ?? 256))(sections)
}
