import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../lib/error.js'
import { invalid } from '../collect.js'
import type { OpenOptions } from '../image/image.js'
import type { Rgb } from '../image/resize.js'
import { download } from '../media/fetch-media.js'
import { bytesIn, isAddress, pathIn } from '../media/media-source.js'
import type { FilmBytes } from '../text/messages.js'
import { endOfContainer } from './container-end.js'
import { ffmpeg } from './ffmpeg.js'
import type { Film } from './film.js'
import { nodeAv } from './node-av.js'
import { type FilmReader, type Reading, rotate, timelineOf } from './timeline.js'

/** A film's file: where it lies, or its bytes; `name` is what errors call it. */
interface FilmFile {
  readonly name: string
  readonly source: string | Uint8Array
}

/** Runs `use` on a path; bytes lie in a temporary file meanwhile, for FFmpeg seeks in files. */
async function* withPath<A>({ source }: FilmFile, use: (path: string) => AsyncIterable<A>): AsyncGenerator<A> {
  if (typeof source === 'string') return yield* use(source)
  const dir = await mkdtemp(join(tmpdir(), 'internvl-film-'))
  try {
    await writeFile(join(dir, 'film'), source)
    yield* use(join(dir, 'film'))
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

const fileOf = async (source: string | URL | FilmBytes, options: OpenOptions): Promise<E.Either<Issues, FilmFile>> => {
  if (source instanceof Blob) return E.right({ name: 'Blob', source: Buffer.from(await source.arrayBuffer()) })
  if (source instanceof ArrayBuffer) return E.right({ name: 'ArrayBuffer', source: new Uint8Array(source) })
  if (source instanceof Uint8Array) return E.right({ name: 'Buffer', source })
  const text = String(source)
  if (isAddress(text)) {
    const bytes = await download(text, options)()
    return E.isLeft(bytes) ? bytes : E.right({ name: text, source: bytes.right })
  }
  const bytes = bytesIn(text)
  if (bytes) return E.right({ name: 'data URL', source: bytes })
  return E.map((path: string) => ({ name: path, source: resolve(path) }))(pathIn(text))
}

const NO_READER =
  'to decode films, install the package node-av beside this one (npm install --ignore-scripts node-av@6), or ffmpeg and ffprobe on the PATH'

const checkWhole = async (path: string, name: string): Promise<E.Either<Issues, void>> => {
  const info = await stat(path).catch(() => undefined)
  if (!info?.isFile()) return invalid('NotFound', `${name}: no such film, and no folder of frames.`, { name })
  if (info.size === 0) return invalid('Empty', `${name}: the film is empty (0 bytes).`, { name })
  const end = await endOfContainer(path, info.size)
  if (end > info.size)
    return invalid('CutShort', `${name}: the film is cut short: its header speaks of ${end} bytes, ${info.size} are there.`, {
      name
    })
  return E.right(undefined)
}

interface Opened {
  readonly reader: FilmReader
  readonly reading: Reading
}

const probe = async (path: string, name: string, readers: readonly FilmReader[]): Promise<E.Either<Issues, Opened>> => {
  const whole = await checkWhole(path, name)
  if (E.isLeft(whole)) return whole
  for (const reader of readers) {
    const reading = await reader.probe(path)
    if (reading === 'unavailable') continue
    if (typeof reading === 'string') return invalid('NotAFilm', `${name}: ${reading}.`, { name })
    if (reading.packets.length === 0) return invalid('Video', `${name}: a film of zero frames.`, { name })
    return E.right({ reader, reading })
  }
  return invalid('NoFilmReader', `${name}: ${NO_READER}.`, { name })
}

/** The film's frames at rising indices, upright, one at a time; the first that cannot be decoded is an error, and the last. */
async function* framesOf(file: FilmFile, { reader, reading }: Opened, indices: readonly number[]) {
  const timeline = timelineOf(reading)
  const targets = indices.map(timeline.target)
  let at = 0
  for await (const frame of withPath(file, (path) => reader.frames(path, reading, targets))) {
    if (frame === undefined) {
      const message = `${file.name}: frame ${indices[at]} of ${timeline.totalNumFrames} could not be decoded; the film is damaged.`
      yield invalid('DamagedFilm', message, { name: file.name, index: indices[at] })
      return
    }
    at++
    yield E.right<Issues, Rgb>(rotate(frame, reading.quarterTurns))
  }
}

const probed = async function* (path: string, name: string, readers: readonly FilmReader[]) {
  yield await probe(path, name, readers)
}

/**
 * A film in a file: mp4, mov, webm, mkv, gif, avi or ts, by path, address or bytes. Its frames are counted by reading
 * packets and not decoding them, in the order of their times; it turns as its rotation says. Frames are decoded from the
 * key frame before each. Indices, frames a second and colours are torchcodec's, which Transformers decodes films with.
 * Errors: no film, cut short, no picture stream, no frame, nothing here to decode it with.
 */
export const openFilmFile =
  (
    source: string | URL | FilmBytes,
    options: OpenOptions = {},
    readers: readonly FilmReader[] = [nodeAv, ffmpeg]
  ): TaskEither<Issues, Film> =>
  async () => {
    const file = await fileOf(source, options)
    if (E.isLeft(file)) return file
    for await (const opened of withPath(file.right, (path) => probed(path, file.right.name, readers))) {
      if (E.isLeft(opened)) return opened
      const { width, height, quarterTurns } = opened.right.reading
      if (options.maxPixels !== undefined && width * height > options.maxPixels)
        return invalid('TooLarge', `${file.right.name}: ${width} x ${height} pixels, more than ${options.maxPixels}.`)
      const { totalNumFrames, fps } = timelineOf(opened.right.reading)
      const size = quarterTurns % 2 === 0 ? { width, height } : { width: height, height: width }
      return E.right({
        totalNumFrames,
        fps,
        sizeOf: () => async () => E.right(size),
        frames: (indices) => framesOf(file.right, opened.right, indices)
      })
    }
    throw new Error('unreachable: a film is probed once')
  }
