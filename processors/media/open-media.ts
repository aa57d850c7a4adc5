import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid } from '../../lib/error.js'
import type { ImageConfig, VideoConfig } from '../config/processor-config.js'
import { type ImageSource, type OpenOptions, openImage } from '../image/image.js'
import { checkBackend, RESIZES } from '../image/image-backend.js'
import { normalizeTable, writeTile } from '../image/normalize.js'
import type { Rgb, Size } from '../image/resize.js'
import { countTiles, type Grid, gridOf, tilesOf } from '../image/tiling.js'
import type { VideoSource } from '../text/messages.js'
import { frameIndices } from '../video/frame-sampling.js'
import { openVideo } from '../video/video.js'

/** An image or video before decoding: the number and size of its tiles, and a function that decodes them. */
export interface VisualInput {
  readonly kind: 'image' | 'video'
  readonly tiles: number
  readonly tileSize: Size
  /** Upright size of an image in pixels, and the grid of its tiles without the thumbnail; a video has none. */
  readonly layout?: Size & Grid
  /** Decodes the tiles `[tiles, 3, height, width]` into `out` from `offset` on. */
  readonly write: (out: Float32Array, offset: number) => TE.TaskEither<Issues, void>
}

/** Writes the normalized tiles of images, decoding one image at a time. Errors: a tile that does not have the tile size. */
const writeTiles = async (
  images: AsyncIterable<E.Either<Issues, Rgb>>,
  tilesIn: (image: Rgb) => readonly Rgb[],
  { width, height }: Size,
  table: readonly Float32Array[],
  out: Float32Array,
  offset: number,
  { retouch }: OpenOptions
): Promise<E.Either<Issues, void>> => {
  let position = offset
  for await (const image of images) {
    if (E.isLeft(image)) return image
    for (const tile of tilesIn(retouch ? await retouch(image.right) : image.right)) {
      if (tile.width !== width || tile.height !== height)
        return invalid(
          'Option',
          `A tile of ${tile.width} x ${tile.height} pixels, expected ${width} x ${height}; leave doResize on.`
        )
      writeTile(out, position, tile, table)
      position += 3 * width * height
    }
  }
  return E.right(undefined)
}

async function* decodedImage(decode: TE.TaskEither<Issues, Rgb>) {
  yield await decode()
}

/** Opens an image as tiles. */
export const openImageTiles = (
  source: ImageSource,
  config: ImageConfig,
  options: OpenOptions
): TE.TaskEither<Issues, VisualInput> =>
  pipe(
    TE.fromEither(checkBackend(config.imageBackend, config.resample)),
    TE.chain(() => openImage(source, options)),
    TE.map((image): VisualInput => {
      const isUnresized = !config.doResize && !(config.cropToPatches && config.maxPatches > 1)
      const tilesIn = isUnresized ? (rgb: Rgb) => [rgb] : (rgb: Rgb) => tilesOf(rgb, config)
      const tileSize = isUnresized ? { width: image.width, height: image.height } : config.size
      const table = normalizeTable(config, config.imageBackend)
      const { width, height } = image
      return {
        kind: 'image',
        tiles: isUnresized ? 1 : countTiles(image, config),
        tileSize,
        layout: { width, height, ...(isUnresized ? { columns: 1, rows: 1 } : gridOf(image, config)) },
        write: (out, offset) => () => writeTiles(decodedImage(image.decode), tilesIn, tileSize, table, out, offset, options)
      }
    })
  )

/** Transformers has no other backend for videos. Source: `BaseVideoProcessor` (transformers 5.24). */
const VIDEO_BACKEND = 'torchvision'

/** Opens a video as one tile per sampled frame; only sampled frames are decoded, when they are written. */
export const openVideoTiles = (
  source: VideoSource,
  fps: number | undefined,
  config: VideoConfig,
  options: OpenOptions
): TE.TaskEither<Issues, VisualInput> => {
  const sampling = config.doSampleFrames ? config : { numFrames: undefined, fps: undefined, initialShift: true }
  const tilesIn = (frame: Rgb): readonly Rgb[] => [
    config.doResize ? RESIZES[VIDEO_BACKEND](frame, config.size, config.resample) : frame
  ]
  return pipe(
    TE.fromEither(checkBackend(VIDEO_BACKEND, config.resample)),
    TE.bind('video', () => openVideo(source, fps, options)),
    TE.bind('indices', ({ video }) => TE.fromEither(frameIndices(video, sampling))),
    TE.bind('tileSize', ({ video, indices }) => (config.doResize ? TE.right(config.size) : video.sizeOf(indices[0]!))),
    TE.map(({ video, indices, tileSize: { width, height } }): VisualInput => {
      const table = normalizeTable(config, VIDEO_BACKEND)
      const tileSize = { width, height }
      return {
        kind: 'video',
        tiles: indices.length,
        tileSize,
        write: (out, offset) => () => writeTiles(video.frames(indices), tilesIn, tileSize, table, out, offset, options)
      }
    })
  )
}
