import type { Issue } from '../lib/error.js'
import { issue } from '../lib/error.js'
import type { ImageConfig, ProcessorConfig, VideoConfig } from './config/processor-config.js'
import type { Size } from './image/resize.js'

/** What a call may set otherwise than the checkpoint's files; the names are Transformers'. */
export interface ImageOptions {
  /** Size of a tile in pixels; one number is both sides. */
  readonly size?: Size | number
  /** Pillow's number of a filter, see `RESAMPLE`. */
  readonly resample?: number
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
  /** Frames to take of each film. Not together with `fps`. */
  readonly numFrames?: number
  /** Frames a second to take. */
  readonly fps?: number
  /** Index of the first frame; `true` is the middle of the first stretch. */
  readonly initialShift?: boolean | number
  /** Whether to sample with the checkpoint's own `num_frames` or `fps`. */
  readonly doSampleFrames?: boolean
}

const without = <T extends object>(record: T): Partial<T> =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as Partial<T>

const three = (value: readonly number[] | number): readonly number[] =>
  typeof value === 'number' ? [value, value, value] : value
const pair = (size: Size | number): Size => (typeof size === 'number' ? { width: size, height: size } : size)

/** The checkpoint's numbers with a call's in their place. A call's `numFrames` or `fps` turns sampling on, as in Transformers. */
export const withOptions = (config: ProcessorConfig, options: ImageOptions & VideoOptions): ProcessorConfig => {
  const { size, mean, std, resample, rescaleFactor, doResize, doRescale, doNormalize } = options
  const shared = without({
    size: size === undefined ? undefined : pair(size),
    mean: mean === undefined ? undefined : three(mean),
    std: std === undefined ? undefined : three(std),
    ...{ resample, rescaleFactor, doResize, doRescale, doNormalize }
  })
  const { cropToPatches, minPatches, maxPatches, useThumbnail, numFrames, fps, initialShift, doSampleFrames } = options
  const asked = numFrames !== undefined || fps !== undefined
  return {
    ...config,
    image: { ...config.image, ...shared, ...without({ cropToPatches, minPatches, maxPatches, useThumbnail }) } as ImageConfig,
    video: {
      ...config.video,
      ...shared,
      ...(asked ? { numFrames, fps } : {}),
      ...without({ initialShift, doSampleFrames: doSampleFrames ?? (asked ? true : undefined) })
    } as VideoConfig
  }
}

/** Tokens that stand for one tile of another size than the checkpoint's: as many as its share of the pixels. */
export const tokensPerTile = ({ image, imageSeqLength }: ProcessorConfig, size: Size): number =>
  (imageSeqLength * size.width * size.height) / (image.size.width * image.size.height)

const whole = (n: number): boolean => Number.isInteger(n) && n > 0

/** Everything that is wrong with a call's options; `base` is the checkpoint's configuration, `config` that with the options. */
export const checkOptions = (base: ProcessorConfig, { image }: ProcessorConfig): readonly Issue[] => {
  const { size, minPatches: min, maxPatches: max, resample, mean, std } = image
  const wrong: string[] = []
  if (!whole(size.width) || !whole(size.height)) wrong.push(`size: expected whole pixels, got ${size.width} x ${size.height}.`)
  else if (!whole(tokensPerTile(base, size)))
    wrong.push(`size: a tile of ${size.width} x ${size.height} pixels is no whole number of tokens for this checkpoint.`)
  if (!whole(min)) wrong.push(`minPatches: expected a whole number above 0, got ${min}.`)
  if (!whole(max)) wrong.push(`maxPatches: expected a whole number above 0, got ${max}.`)
  if (max > 1 && min > max) wrong.push(`minPatches=${min} is more than maxPatches=${max}.`)
  if (!Number.isInteger(resample) || resample < 0 || resample > 5)
    wrong.push(`resample: expected one of Pillow's filters, 0 to 5, got ${resample}.`)
  if (mean.length !== 3 || std.length !== 3 || std.includes(0))
    wrong.push('mean and std: expected three numbers each, std without a 0.')
  return wrong.map((message) => issue('Option', message))
}
