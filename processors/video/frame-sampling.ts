import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid, valueText } from '../../lib/error.js'

/** Facts about a video that are known before a frame is decoded. */
export interface VideoMetadata {
  readonly totalNumFrames: number
  /** Frames per second. */
  readonly fps?: number | undefined
}

/** Request of frames: `numFrames` of them, or `fps` per second, or, with neither, all. */
export interface SamplingOptions {
  readonly doSampleFrames: boolean
  readonly numFrames: number | undefined
  /** Frames per second to sample; needs the video's own frame rate. Excludes `numFrames`. */
  readonly fps: number | undefined
  /** Index of the first frame; `true` is the middle of the first interval. */
  readonly initialShift: boolean | number
  /** If given, a video with fewer frames than requested gives all its frames, and the function is called; else this is an error. */
  readonly onFewerFrames?: ((requested: number, total: number) => void) | undefined
}

const isRate = (fps: number | undefined): boolean => fps === undefined || (Number.isFinite(fps) && fps > 0)

/** The first error of a sampling request that does not depend on the number of frames. */
const samplingError = (rate: number | undefined, { numFrames, fps, initialShift }: Omit<SamplingOptions, 'doSampleFrames'>) => {
  if (numFrames !== undefined && fps !== undefined)
    return `numFrames=${numFrames} and fps=${fps} exclude each other: give one of them.`
  if (numFrames !== undefined && !(Number.isSafeInteger(numFrames) && numFrames > 0))
    return `numFrames: expected a whole number above 0, got ${valueText(numFrames)}.`
  if (!isRate(fps)) return `fps: expected a number above 0, got ${valueText(fps)}.`
  if (fps !== undefined && rate === undefined)
    return `fps=${fps} needs the video's own frame rate, which is unknown here: give numFrames.`
  if (fps !== undefined && !isRate(rate))
    return `fps=${fps} needs the video's own frame rate, a number above 0; its frame rate is ${rate}.`
  return Number.isNaN(Number(initialShift))
    ? `initialShift: expected true, false or a number, got ${valueText(initialShift)}.`
    : undefined
}

const SPLITTER = 2 ** 27 + 1

/** The halves of a double with at most 26 bits each. Source: Veltkamp. */
const halves = (x: number): readonly [high: number, low: number] => {
  const high = x * SPLITTER - (x * SPLITTER - x)
  return [high, x - high]
}

/** `a · b + c`, rounded once, as a fused multiply-add instruction. Source: Dekker's product and Knuth's sum. */
const fma = (a: number, b: number, c: number): number => {
  const [[aHigh, aLow], [bHigh, bLow]] = [halves(a), halves(b)]
  const product = a * b
  const productError = aLow * bLow - (product - aHigh * bHigh - aLow * bHigh - aHigh * bLow)
  const sum = product + c
  const rest = sum - product
  return sum + (product - (sum - rest) + (c - rest) + productError)
}

const LANES = 8 // float32 numbers of an AVX2 register

/**
 * `torch.arange(start, end, step)` in float32, bit for bit: registers of eight start from a rounded base, two registers at a time;
 * the remaining numbers are computed one by one.
 *
 * Source: `arange_kernel`, `Vectorized<float>::arange` (PyTorch 2.15, x86).
 */
const arange = (start: number, end: number, step: number): readonly number[] => {
  const length = Math.ceil((end - start) / step)
  const vectorized = length - (length % (2 * LANES))
  return Array.from({ length }, (_, i) => {
    const lane = i < vectorized ? i % LANES : 0
    const base = Math.fround(fma(step, i - lane, start))
    return Math.fround(fma(step, lane, base))
  })
}

/**
 * Indices of the frames to sample, evenly spaced: `arange(shift, total, total / numFrames)`, truncated.
 *
 * Source: `InternVLVideoProcessor.sample_frames` (transformers 5.24).
 */
export const frameIndices = (
  { totalNumFrames: total, fps: rate }: VideoMetadata,
  options: Omit<SamplingOptions, 'doSampleFrames'>
): E.Either<Issues, readonly number[]> => {
  const { numFrames, fps, initialShift } = options
  const error = samplingError(rate, options)
  if (error !== undefined) return invalid('VideoSampling', error)
  if (numFrames === undefined && fps === undefined) return E.right(Array.from({ length: total }, (_, i) => i))
  const requested = numFrames ?? Math.trunc((total / rate!) * fps!)
  if (requested > total) options.onFewerFrames?.(requested, total)
  const sampled = options.onFewerFrames ? Math.min(requested, total) : requested
  if (sampled > total)
    return invalid(
      'VideoSampling',
      `Video can't be sampled. The \`num_frames=${sampled}\` exceeds \`total_num_frames=${total}\`. `
    )
  if (sampled < 1)
    return invalid('VideoSampling', `fps=${fps}: no frame would be sampled from a video of ${total} frames: raise fps.`)
  const step = total / sampled
  const start = initialShift === true ? step / 2 : Number(initialShift)
  if (start < 0 || start >= total)
    return invalid('VideoSampling', `initialShift=${start} lies outside the video of ${total} frames.`)
  return E.right(arange(start, total, step).map(Math.trunc))
}
