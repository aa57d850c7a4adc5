import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid } from '../../lib/error.js'
import type { OpenOptions } from '../image/image.js'
import { checkPixels } from '../image/pixel-limit.js'
import type { Rgb, Size } from '../image/resize.js'
import { type MediaFile, openSource } from '../media/media-source.js'
import type { VideoBytes } from '../text/messages.js'
import { endOfContainer } from './container-end.js'
import { ffmpeg } from './ffmpeg.js'
import type { VideoMetadata } from './frame-sampling.js'
import { nodeAv } from './node-av.js'
import { rotate, timelineOf, type VideoProbe, type VideoReader } from './timeline.js'

/** A video whose packets are read and whose frames are not decoded yet. */
export interface OpenedVideo extends VideoMetadata {
  /** Width and height of the frame at an index, in pixels. */
  readonly sizeOf: (index: number) => TaskEither<Issues, Size>
  /** Decodes the frames at rising indices, one at a time as the iterator is advanced. */
  readonly frames: (indices: readonly number[]) => AsyncIterable<E.Either<Issues, Rgb>>
}

/** Calls `use` with a path. Bytes are written to a temporary file for the duration of the call, because FFmpeg seeks in files. */
async function* withPath<A>({ source }: MediaFile, use: (path: string) => AsyncIterable<A>): AsyncGenerator<A> {
  if (typeof source === 'string') return yield* use(source)
  const dir = await mkdtemp(join(tmpdir(), 'internvl-video-'))
  try {
    await writeFile(join(dir, 'video'), source)
    yield* use(join(dir, 'video'))
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

const videoFileOf = async (source: string | URL | VideoBytes, options: OpenOptions): Promise<E.Either<Issues, MediaFile>> => {
  if (source instanceof Blob) return E.right({ name: 'Blob', source: Buffer.from(await source.arrayBuffer()) })
  if (source instanceof ArrayBuffer) return E.right({ name: 'ArrayBuffer', source: Buffer.from(source) })
  if (source instanceof Uint8Array)
    return E.right({ name: 'Buffer', source: Buffer.from(source.buffer, source.byteOffset, source.byteLength) })
  return openSource(String(source), 'video', options)
}

const INSTALL_READER =
  'to decode videos, install the package node-av beside this one (npm install --ignore-scripts node-av@6), or ffmpeg and ffprobe on the PATH'

const checkFile = async (path: string, name: string): Promise<E.Either<Issues, void>> => {
  const info = await stat(path).catch(() => undefined)
  if (!info?.isFile()) return invalid('NotFound', `${name}: no such file or folder of frames.`, { name })
  if (info.size === 0) return invalid('Empty', `${name}: the video is empty (0 bytes).`, { name })
  const end = await endOfContainer(path, info.size)
  if (end > info.size)
    return invalid(
      'TruncatedVideo',
      `${name}: the video is truncated: its header declares ${end} bytes, the file has ${info.size}.`,
      {
        name
      }
    )
  return E.right(undefined)
}

interface ProbedFile {
  readonly reader: VideoReader
  readonly reading: VideoProbe
}

const probe = async (path: string, name: string, readers: readonly VideoReader[]): Promise<E.Either<Issues, ProbedFile>> => {
  const whole = await checkFile(path, name)
  if (E.isLeft(whole)) return whole
  for (const reader of readers) {
    const reading = await reader.probe(path)
    if (reading === 'unavailable') continue
    if (typeof reading === 'string') return invalid('NotAVideo', `${name}: ${reading}.`, { name })
    if (reading.packets.length === 0) return invalid('Video', `${name}: the video has no frames.`, { name })
    return E.right({ reader, reading })
  }
  return invalid('NoVideoReader', `${name}: ${INSTALL_READER}.`, { name })
}

/** Decodes the frames at rising indices and rotates them upright, one at a time; ends with an error at the first frame that cannot be decoded. */
async function* decodeFrames(file: MediaFile, { reader, reading }: ProbedFile, indices: readonly number[]) {
  const timeline = timelineOf(reading)
  const targets = indices.map(timeline.target)
  let decoded = 0
  for await (const frame of withPath(file, (path) => reader.frames(path, reading, targets))) {
    if (frame === undefined) {
      const message = `${file.name}: frame ${indices[decoded]} of ${timeline.totalNumFrames} cannot be decoded; the video is damaged.`
      yield invalid('CorruptVideo', message, { name: file.name, index: indices[decoded] })
      return
    }
    decoded++
    yield E.right<Issues, Rgb>(rotate(frame, reading.quarterTurns))
  }
}

const probed = async function* (path: string, name: string, readers: readonly VideoReader[]) {
  yield await probe(path, name, readers)
}

/**
 * Opens a video file (mp4, mov, webm, mkv, gif, avi or ts) by path, URL or bytes. Packets are read to count the frames and to
 * order them by presentation time; no frame is decoded. `frames` seeks to the key frame before each index and applies the
 * container's rotation. Indices, frame rate and colours equal those of torchcodec, which decodes videos in Transformers.
 * Errors: the file is missing, empty, truncated, not a video, without a video stream or frames, or no decoder is installed.
 */
export const openVideoFile =
  (
    source: string | URL | VideoBytes,
    options: OpenOptions = {},
    readers: readonly VideoReader[] = [nodeAv, ffmpeg]
  ): TaskEither<Issues, OpenedVideo> =>
  async () => {
    const file = await videoFileOf(source, options)
    if (E.isLeft(file)) return file
    for await (const opened of withPath(file.right, (path) => probed(path, file.right.name, readers))) {
      if (E.isLeft(opened)) return opened
      const { width, height, quarterTurns } = opened.right.reading
      const whole = checkPixels({ width, height }, file.right.name, options.maxPixels)
      if (E.isLeft(whole)) return whole
      const { totalNumFrames, fps } = timelineOf(opened.right.reading)
      const size = quarterTurns % 2 === 0 ? { width, height } : { width: height, height: width }
      return E.right({
        totalNumFrames,
        fps,
        sizeOf: () => async () => E.right(size),
        frames: (indices) => decodeFrames(file.right, opened.right, indices)
      })
    }
    throw new Error('unreachable: the probe yields exactly once')
  }
