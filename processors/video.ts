import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Faults } from '../lib/fault.js'
import { leftFault } from './collect.js'
import type { ImageSource } from './image.js'
import type { VideoSource } from './messages.js'

/** Which frames of a film are taken: `numFrames` of them, or `fps` a second, or, with neither, all. */
export interface SamplingOptions {
  readonly doSampleFrames: boolean
  readonly numFrames: number | undefined
  /** Frames a second to take; needs the film's own. Not together with `numFrames`. */
  readonly fps: number | undefined
  /** The first index; `true` is the middle of the first stretch. */
  readonly initialShift: boolean | number
}

/** What is known of a film before a frame is decoded. */
export interface VideoMetadata {
  readonly totalNumFrames: number
  /** Frames a second. */
  readonly fps?: number | undefined
}

/**
 * Indices of the frames to take, evenly spread: `arange(shift, total, total / numFrames)`, truncated.
 *
 * Source: `InternVLVideoProcessor.sample_frames` (transformers 5.23).
 */
export const frameIndices = (
  { totalNumFrames: total, fps: rate }: VideoMetadata,
  { numFrames, fps, initialShift }: Omit<SamplingOptions, 'doSampleFrames'>
): E.Either<Faults, readonly number[]> => {
  if (numFrames !== undefined && fps !== undefined)
    return leftFault('VideoSampling', `numFrames=${numFrames} and fps=${fps} exclude each other: give one of them.`)
  if (numFrames === undefined && fps === undefined) return E.right(Array.from({ length: total }, (_, i) => i))
  if (numFrames === undefined && rate === undefined)
    return leftFault('VideoSampling', `fps=${fps} needs the film's own frames a second, which are unknown here: give numFrames.`)
  const wanted = numFrames ?? Math.trunc((total / rate!) * fps!)
  if (wanted > total)
    return leftFault(
      'VideoSampling',
      `Video can't be sampled. The \`num_frames=${wanted}\` exceeds \`total_num_frames=${total}\`. `
    )
  if (wanted < 1)
    return leftFault('VideoSampling', `No frame would be taken of a film of ${total} frames: raise numFrames or fps.`)
  const step = total / wanted
  const start = initialShift === true ? step / 2 : Number(initialShift)
  if (start < 0 || start >= total)
    return leftFault('VideoSampling', `initialShift=${start} lies outside the film of ${total} frames.`)
  const length = Math.ceil((total - start) / step)
  return E.right(Array.from({ length }, (_, i) => Math.trunc(Math.fround(start + i * step))))
}

/** A film before a frame of it is decoded. */
export interface Film extends VideoMetadata {
  /** The frames at these indices, in their order. */
  readonly frames: (indices: readonly number[]) => TaskEither<Faults, readonly ImageSource[]>
}

const ofFrames = (frames: readonly ImageSource[], fps: number | undefined): Film => ({
  totalNumFrames: frames.length,
  fps,
  frames: (indices) => async () => E.right(indices.map((i) => frames[i]!))
})

const PICTURES = /\.(jpe?g|png|webp|gif|tiff?|avif)$/i

/**
 * A film of the frames given, or of the pictures in a folder by name, numbers in it counted as numbers; `fps` is the film's
 * own. Faults: a path that is no such folder, a film without a frame.
 */
export const openFilm =
  (source: VideoSource, fps?: number): TaskEither<Faults, Film> =>
  async () => {
    if (typeof source !== 'string' && !(source instanceof URL))
      return source.length > 0 ? E.right(ofFrames(source, fps)) : leftFault('Video', 'A film of zero frames: give at least one.')
    const path = source instanceof URL && source.protocol === 'file:' ? fileURLToPath(source) : String(source)
    const names = await readdir(path).catch(() => undefined)
    if (!names)
      return leftFault('Video', `${path}: not a folder of frames; a film is a list of pictures or such a folder.`, { path })
    const order = new Intl.Collator('en', { numeric: true })
    const frames = names.filter((name) => PICTURES.test(name)).sort(order.compare)
    if (frames.length === 0) return leftFault('Video', `${path}: no pictures in this folder.`, { path })
    return E.right(
      ofFrames(
        frames.map((name) => join(path, name)),
        fps
      )
    )
  }
