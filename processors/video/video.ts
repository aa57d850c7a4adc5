import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../lib/error.js'
import { invalid } from '../collect.js'
import { type ImageSource, type OpenOptions, openPicture, readImage } from '../image/image.js'
import { pathIn } from '../media/media-source.js'
import { isFrames, type VideoSource } from '../text/messages.js'
import type { Film, VideoMetadata } from './film.js'
import { openFilmFile } from './video-file.js'

/** Which frames of a film are taken: `numFrames` of them, or `fps` a second, or, with neither, all. */
export interface SamplingOptions {
  readonly doSampleFrames: boolean
  readonly numFrames: number | undefined
  /** Frames a second to take; needs the film's own. Not together with `numFrames`. */
  readonly fps: number | undefined
  /** The first index; `true` is the middle of the first stretch. */
  readonly initialShift: boolean | number
}

const isRate = (fps: number | undefined): boolean => fps === undefined || (Number.isFinite(fps) && fps > 0)

/** What is wrong with a request for frames, whatever film it is about. */
const askedWrongly = (rate: number | undefined, { numFrames, fps, initialShift }: Omit<SamplingOptions, 'doSampleFrames'>) => {
  if (numFrames !== undefined && fps !== undefined)
    return `numFrames=${numFrames} and fps=${fps} exclude each other: give one of them.`
  if (numFrames !== undefined && !(Number.isSafeInteger(numFrames) && numFrames > 0))
    return `numFrames: expected a whole number above 0, got ${numFrames}.`
  if (!isRate(fps)) return `fps: expected a number above 0, got ${fps}.`
  if (fps !== undefined && rate === undefined)
    return `fps=${fps} needs the film's own frames a second, which are unknown here: give numFrames.`
  if (fps !== undefined && !isRate(rate))
    return `fps=${fps} needs the film's own frames a second, a number above 0; they are ${rate}.`
  return Number.isNaN(Number(initialShift)) ? `initialShift: expected true, false or a number, got ${initialShift}.` : undefined
}

/**
 * Indices of the frames to take, evenly spread: `arange(shift, total, total / numFrames)`, truncated.
 *
 * Source: `InternVLVideoProcessor.sample_frames` (transformers 5.23).
 */
export const frameIndices = (
  { totalNumFrames: total, fps: rate }: VideoMetadata,
  options: Omit<SamplingOptions, 'doSampleFrames'>
): E.Either<Issues, readonly number[]> => {
  const { numFrames, fps, initialShift } = options
  const wrong = askedWrongly(rate, options)
  if (wrong !== undefined) return invalid('VideoSampling', wrong)
  if (numFrames === undefined && fps === undefined) return E.right(Array.from({ length: total }, (_, i) => i))
  const wanted = numFrames ?? Math.trunc((total / rate!) * fps!)
  if (wanted > total)
    return invalid(
      'VideoSampling',
      `Video can't be sampled. The \`num_frames=${wanted}\` exceeds \`total_num_frames=${total}\`. `
    )
  if (wanted < 1) return invalid('VideoSampling', `fps=${fps}: no frame would be taken of a film of ${total} frames: raise it.`)
  const step = total / wanted
  const start = initialShift === true ? step / 2 : Number(initialShift)
  if (start < 0 || start >= total)
    return invalid('VideoSampling', `initialShift=${start} lies outside the film of ${total} frames.`)
  const length = Math.ceil((total - start) / step)
  return E.right(Array.from({ length }, (_, i) => Math.trunc(Math.fround(start + i * step))))
}

const ofFrames = (frames: readonly ImageSource[], fps: number | undefined, options: OpenOptions): Film => ({
  totalNumFrames: frames.length,
  fps,
  sizeOf: (index) => openPicture(frames[index]!, options),
  frames: async function* (indices) {
    for (const index of indices) yield await readImage(frames[index]!, options)()
  }
})

const PICTURES = /\.(jpe?g|png|webp|gif|tiff?|avif)$/i

/** The paths of the pictures in a folder by name, numbers in it counted as numbers; undefined when it is no folder. */
const picturesIn = async (source: string | URL): Promise<readonly string[] | undefined> => {
  const path = pathIn(String(source))
  if (E.isLeft(path)) return undefined // opening it as a file tells
  const names = await readdir(path.right).catch(() => undefined)
  const order = new Intl.Collator('en', { numeric: true })
  return names
    ?.filter((name) => PICTURES.test(name))
    .sort(order.compare)
    .map((name) => join(path.right, name))
}

/**
 * A film in a file, of the frames given, or of the pictures in a folder; `fps` is the film's own where it does not say.
 * Errors: no such film, a film without a frame, and those of `openFilmFile`.
 */
export const openFilm =
  (source: VideoSource, fps?: number, options: OpenOptions = {}): TaskEither<Issues, Film> =>
  async () => {
    if (isFrames(source))
      return source.length > 0
        ? E.right(ofFrames(source, fps, options))
        : invalid('Video', 'A film of zero frames: give at least one.')
    const pictures = typeof source === 'string' || source instanceof URL ? await picturesIn(source) : undefined
    if (pictures?.length === 0) return invalid('Video', `${source}: no pictures in this folder.`, { path: String(source) })
    if (pictures) return E.right(ofFrames(pictures, fps, options))
    const film = await openFilmFile(source, options)()
    return E.isRight(film) && fps !== undefined ? E.right({ ...film.right, fps }) : film
  }
