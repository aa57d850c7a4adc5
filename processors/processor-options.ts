import { type Issue, issue, valueText } from '../lib/error.js'
import { withoutUndefined } from '../lib/plain-object.js'
import type { ImageConfig, ProcessorConfig, VideoConfig } from './config/processor-config.js'
import { IMAGE_BACKENDS, type ImageBackend, isImageBackend } from './image/image-backend.js'
import type { Size } from './image/resize.js'

/** Per-call overrides of the checkpoint's image settings; the names are those of Transformers. */
export interface ImageOptions {
  /** Size of a tile in pixels; one number sets both sides. */
  readonly size?: Size | number
  /** Pillow's filter number, see `RESAMPLE`. */
  readonly resample?: number
  /**
   * Library whose resize and normalization of images are computed, bit for bit. Default: torchvision, as Transformers. Pillow is what OpenGVLab's
   * code uses. Videos always have torchvision's, as in Transformers.
   */
  readonly imageBackend?: ImageBackend
  readonly mean?: readonly number[] | number
  readonly std?: readonly number[] | number
  readonly rescaleFactor?: number
  readonly doResize?: boolean
  readonly doRescale?: boolean
  readonly doNormalize?: boolean
  readonly cropToPatches?: boolean
  readonly minPatches?: number
  readonly maxPatches?: number
  readonly useThumbnail?: boolean
}

export interface VideoOptions {
  /** Number of frames to sample from each video. Excludes `fps`. */
  readonly numFrames?: number
  /** Frames per second to sample. */
  readonly fps?: number
  /** Index of the first frame; `true` is the middle of the first interval. */
  readonly initialShift?: boolean | number
  /** Whether to sample with the checkpoint's `num_frames` or `fps`. */
  readonly doSampleFrames?: boolean
  /** If given, a video with fewer frames than requested gives all its frames, and the function is called; else this is an error. */
  readonly onFewerFrames?: ((requested: number, total: number) => void) | undefined
}

const perChannel = (value: readonly number[] | number): readonly number[] =>
  typeof value === 'number' ? [value, value, value] : value
const toSize = (size: Size | number): Size => (typeof size === 'number' ? { width: size, height: size } : size)

/** The checkpoint's configuration with a call's overrides. `numFrames` or `fps` in a call turns sampling on, as in Transformers. */
export const withOptions = (config: ProcessorConfig, options: ImageOptions & VideoOptions): ProcessorConfig => {
  const { size, mean, std, resample, rescaleFactor, doResize, doRescale, doNormalize } = options
  const shared = withoutUndefined({
    size: size === undefined ? undefined : toSize(size),
    mean: mean === undefined ? undefined : perChannel(mean),
    std: std === undefined ? undefined : perChannel(std),
    ...{ resample, rescaleFactor, doResize, doRescale, doNormalize }
  })
  const {
    imageBackend,
    cropToPatches,
    minPatches,
    maxPatches,
    useThumbnail,
    numFrames,
    fps,
    initialShift,
    doSampleFrames,
    onFewerFrames
  } = options
  const samples = numFrames !== undefined || fps !== undefined
  return {
    ...config,
    image: {
      ...config.image,
      ...shared,
      ...withoutUndefined({ imageBackend, cropToPatches, minPatches, maxPatches, useThumbnail })
    } as ImageConfig,
    video: {
      ...config.video,
      ...shared,
      ...(samples ? { numFrames, fps } : {}),
      ...withoutUndefined({ initialShift, onFewerFrames, doSampleFrames: doSampleFrames ?? (samples ? true : undefined) })
    } as VideoConfig
  }
}

/** Tokens per tile of `size`, proportional to its number of pixels. */
export const tokensPerTile = ({ image, imageSeqLength }: ProcessorConfig, size: Size): number =>
  (imageSeqLength * size.width * size.height) / (image.size.width * image.size.height)

/** Bounds of options: beyond them a single image would need gigabytes. */
export const MAX_PATCHES = 1024
const MAX_TILE_SIDE = 4096

const isPositiveInteger = (n: number): boolean => Number.isInteger(n) && n > 0

const isPerChannel = (values: unknown): boolean => Array.isArray(values) && values.length === 3 && values.every(Number.isFinite)

/** All errors of a call's options; `base` is the checkpoint's configuration, the second argument includes the overrides. */
export const checkOptions = (base: ProcessorConfig, { image }: ProcessorConfig): readonly Issue[] => {
  const { size, minPatches: min, maxPatches: max, resample, mean, std, imageBackend, doRescale, rescaleFactor } = image
  const errors: string[] = []
  const isSide = (n: number | undefined): boolean => n !== undefined && isPositiveInteger(n) && n <= MAX_TILE_SIDE
  if (!isSide(size?.width) || !isSide(size?.height))
    errors.push(`size: expected whole pixels from 1 to ${MAX_TILE_SIDE}, got ${valueText(size)}.`)
  else if (!isPositiveInteger(tokensPerTile(base, size)))
    errors.push(`size: a tile of ${size.width} x ${size.height} pixels is not a whole number of tokens for this checkpoint.`)
  if (!isPositiveInteger(min)) errors.push(`minPatches: expected a whole number above 0, got ${valueText(min)}.`)
  if (!isPositiveInteger(max) || max > MAX_PATCHES)
    errors.push(`maxPatches: expected a whole number from 1 to ${MAX_PATCHES}, got ${valueText(max)}.`)
  if (max > 1 && min > max) errors.push(`minPatches=${min} is more than maxPatches=${max}.`)
  if (!Number.isInteger(resample) || resample < 0 || resample > 5)
    errors.push(`resample: expected one of Pillow's filters, 0 to 5, got ${valueText(resample)}.`)
  if (!isImageBackend(imageBackend))
    errors.push(`imageBackend: expected ${IMAGE_BACKENDS.join(' or ')}, got ${valueText(imageBackend)}.`)
  if (!isPerChannel(mean) || !isPerChannel(std) || std.includes(0))
    errors.push('mean and std: expected three numbers each, std without a 0.')
  if (doRescale && !(Number.isFinite(rescaleFactor) && rescaleFactor !== 0))
    errors.push(`rescaleFactor: expected a number other than 0, got ${valueText(rescaleFactor)}.`)
  return errors.map((message) => issue('Option', message))
}
