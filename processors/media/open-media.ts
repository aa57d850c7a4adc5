import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../lib/error.js'
import { invalid } from '../collect.js'
import type { ImageConfig, VideoConfig } from '../config/processor-config.js'
import { type ImageSource, type OpenOptions, openPicture } from '../image/image.js'
import { normalizeTable, writeTile } from '../image/normalize.js'
import { type Rgb, resizeFrame, type Size } from '../image/resize.js'
import { countTiles, tilesOf } from '../image/tiling.js'
import type { VideoSource } from '../text/messages.js'
import { frameIndices, openFilm } from '../video/video.js'

/** A picture or a film before its pixels are read: the number and size of its tiles, and the way to them. */
export interface Visual {
  readonly kind: 'image' | 'video'
  readonly tiles: number
  readonly tileSize: Size
  /** Writes `[tiles, 3, height, width]` into `out` from `offset` on. */
  readonly write: (out: Float32Array, offset: number) => TaskEither<Issues, void>
}

/** Writes pictures as they are decoded, one after another, so that only one is in memory; a picture of another size than `tileSize` is an error. */
const writePictures = async (
  pictures: AsyncIterable<E.Either<Issues, Rgb>>,
  tilesIn: (image: Rgb) => readonly Rgb[],
  { width, height }: Size,
  table: readonly Float32Array[],
  out: Float32Array,
  offset: number,
  { retouch }: OpenOptions
): Promise<E.Either<Issues, void>> => {
  let at = offset
  for await (const image of pictures) {
    if (E.isLeft(image)) return image
    for (const tile of tilesIn(retouch ? await retouch(image.right) : image.right)) {
      if (tile.width !== width || tile.height !== height)
        return invalid('Option', `A tile of ${tile.width} x ${tile.height} pixels among ${width} x ${height}; leave doResize on.`)
      writeTile(out, at, tile, table)
      at += 3 * width * height
    }
  }
  return E.right(undefined)
}

async function* once(decode: TaskEither<Issues, Rgb>) {
  yield await decode()
}

/** A picture as tiles. */
export const openImage =
  (source: ImageSource, config: ImageConfig, options: OpenOptions): TaskEither<Issues, Visual> =>
  async () => {
    const opened = await openPicture(source, options)()
    if (E.isLeft(opened)) return opened
    const picture = opened.right
    const whole = !config.doResize && !(config.cropToPatches && config.maxPatches > 1)
    const tilesIn = whole ? (image: Rgb) => [image] : (image: Rgb) => tilesOf(image, config)
    const tileSize = whole ? { width: picture.width, height: picture.height } : config.size
    const table = normalizeTable(config)
    return E.right({
      kind: 'image',
      tiles: whole ? 1 : countTiles(picture, config),
      tileSize,
      write: (out, offset) => () => writePictures(once(picture.decode), tilesIn, tileSize, table, out, offset, options)
    })
  }

/** A film as one tile a frame; frames are opened when they are written, and those not taken never. */
export const openVideo =
  (source: VideoSource, fps: number | undefined, config: VideoConfig, options: OpenOptions): TaskEither<Issues, Visual> =>
  async () => {
    const opened = await openFilm(source, fps, options)()
    if (E.isLeft(opened)) return opened
    const film = opened.right
    const sampling = config.doSampleFrames ? config : { numFrames: undefined, fps: undefined, initialShift: true }
    const indices = frameIndices(film, sampling)
    if (E.isLeft(indices)) return indices
    const size = config.doResize ? E.right(config.size) : await film.sizeOf(indices.right[0]!)()
    if (E.isLeft(size)) return size
    const { width, height } = size.right
    const tilesIn = (image: Rgb): readonly Rgb[] => [config.doResize ? resizeFrame(image, config.size, config.resample) : image]
    const table = normalizeTable(config)
    return E.right({
      kind: 'video',
      tiles: indices.right.length,
      tileSize: { width, height },
      write: (out, offset) => () =>
        writePictures(film.frames(indices.right), tilesIn, { width, height }, table, out, offset, options)
    })
  }
