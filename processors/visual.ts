import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Faults } from '../lib/fault.js'
import { collectTasks, leftFault } from './collect.js'
import type { ImageConfig, VideoConfig } from './config.js'
import { type ImageSource, type OpenOptions, openPicture, type Picture } from './image.js'
import type { VideoSource } from './messages.js'
import { normalizeTable, writeTile } from './normalize.js'
import { type Rgb, resizeFrame, type Size } from './resize.js'
import { countTiles, tilesOf } from './tiling.js'
import { frameIndices, videoFrames } from './video.js'

/** A picture or a film before its pixels are read: the number and size of its tiles, and the way to them. */
export interface Visual {
  readonly kind: 'image' | 'video'
  readonly tiles: number
  readonly tileSize: Size
  /** Writes `[tiles, 3, height, width]` into `out` from `offset` on. */
  readonly write: (out: Float32Array, offset: number) => TaskEither<Faults, void>
}

/** Decodes pictures one after another, so that only one is in memory. */
const writePictures =
  (pictures: readonly Picture[], tilesIn: (image: Rgb) => readonly Rgb[], table: readonly Float32Array[]): Visual['write'] =>
  (out, offset) =>
  async () => {
    let at = offset
    for (const picture of pictures) {
      const image = await picture.decode()
      if (E.isLeft(image)) return image
      for (const tile of tilesIn(image.right)) {
        writeTile(out, at, tile, table)
        at += 3 * tile.width * tile.height
      }
    }
    return E.right(undefined)
  }

/** A picture as tiles. */
export const openImage =
  (source: ImageSource, config: ImageConfig, options: OpenOptions): TaskEither<Faults, Visual> =>
  async () => {
    const opened = await openPicture(source, options)()
    if (E.isLeft(opened)) return opened
    const picture = opened.right
    const whole = !config.doResize && !(config.cropToPatches && config.maxPatches > 1)
    const tilesIn = whole ? (image: Rgb) => [image] : (image: Rgb) => tilesOf(image, config)
    return E.right({
      kind: 'image',
      tiles: whole ? 1 : countTiles(picture, config),
      tileSize: whole ? { width: picture.width, height: picture.height } : config.size,
      write: writePictures([picture], tilesIn, normalizeTable(config))
    })
  }

/** A film as one tile a frame; frames that are not taken are never opened. */
export const openVideo =
  (source: VideoSource, fps: number | undefined, config: VideoConfig, options: OpenOptions): TaskEither<Faults, Visual> =>
  async () => {
    const film = await videoFrames(source)()
    if (E.isLeft(film)) return film
    const sampling = config.doSampleFrames ? config : { numFrames: undefined, fps: undefined, initialShift: true }
    const indices = frameIndices({ totalNumFrames: film.right.length, fps }, sampling)
    if (E.isLeft(indices)) return indices
    const opened = await collectTasks(indices.right.map((i) => openPicture(film.right[i]!, options)))()
    if (E.isLeft(opened)) return opened
    const [first] = opened.right
    if (!first) return leftFault('Video', 'A film without a frame says nothing: give at least one.')
    return E.right({
      kind: 'video',
      tiles: opened.right.length,
      tileSize: config.doResize ? config.size : { width: first.width, height: first.height },
      write: writePictures(
        opened.right,
        (image) => [config.doResize ? resizeFrame(image, config.size, config.resample) : image],
        normalizeTable(config)
      )
    })
  }
