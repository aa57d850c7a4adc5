import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid } from '../../lib/error.js'
import { IMAGE_EXTENSIONS } from '../image/codecs/image-format.js'
import { type ImageSource, type OpenOptions, openImage, readImage } from '../image/image.js'
import { allowedPath } from '../media/media-policy.js'
import { isHttpUrl, localPath } from '../media/media-source.js'
import { isFrames, type VideoSource } from '../text/messages.js'
import { type OpenedVideo, openVideoFile } from './video-file.js'

const videoOfFrames = (frames: readonly ImageSource[], fps: number | undefined, options: OpenOptions): OpenedVideo => ({
  totalNumFrames: frames.length,
  fps,
  sizeOf: (index) => openImage(frames[index]!, options),
  frames: async function* (indices) {
    for (const index of indices) yield await readImage(frames[index]!, options)()
  }
})

/** Paths of the images in a folder, sorted by name with numbers compared by value; undefined where `source` is not a folder. */
const imagePathsIn = async (source: string | URL, options: OpenOptions): Promise<readonly string[] | undefined> => {
  if (isHttpUrl(String(source)) || /^data:/i.test(String(source))) return undefined
  const path = localPath(String(source))
  const folder = E.isRight(path) ? await allowedPath(path.right, options) : path
  if (E.isLeft(folder)) return undefined // `openVideoFile` reports the error
  const names = await readdir(folder.right).catch(() => undefined)
  const order = new Intl.Collator('en', { numeric: true })
  return names
    ?.filter((name) => IMAGE_EXTENSIONS.test(name))
    .sort(order.compare)
    .map((name) => join(folder.right, name))
}

/**
 * Opens a video file, a list of frames, or a folder of images; `fps` is the frame rate where the source has none.
 * Errors: the video is not found, the video has no frames, and the errors of `openVideoFile`.
 */
export const openVideo =
  (source: VideoSource, fps?: number, options: OpenOptions = {}): TaskEither<Issues, OpenedVideo> =>
  async () => {
    if (isFrames(source))
      return source.length > 0
        ? E.right(videoOfFrames(source, fps, options))
        : invalid('Video', 'The video has no frames: give at least one.')
    const images = typeof source === 'string' || source instanceof URL ? await imagePathsIn(source, options) : undefined
    if (images?.length === 0) return invalid('Video', `${source}: no images in this folder.`, { path: String(source) })
    if (images) return E.right(videoOfFrames(images, fps, options))
    const video = await openVideoFile(source, options)()
    return E.isRight(video) && fps !== undefined ? E.right({ ...video.right, fps }) : video
  }
