import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid } from '../../lib/error.js'
import type { ImageHeader } from './codecs/codec.js'

/** Pillow's `Image.MAX_IMAGE_PIXELS`: it warns above, and refuses above twice as many. */
const WARNING_PIXELS = 89_478_485
export const DEFAULT_MAX_PIXELS = 2 * WARNING_PIXELS

/**
 * Checks the number of pixels before any is decoded. The default limit is Pillow's, for the first frame, which alone is decoded; a given
 * limit is for all frames together. Warns above half of the default limit, as Pillow does. Errors: `TooLarge`.
 */
export const checkPixels = <A extends ImageHeader>(header: A, name: string, given?: number): E.Either<Issues, A> => {
  const { width, height, frames = 1 } = header
  const maxPixels = given ?? DEFAULT_MAX_PIXELS
  const counted = given === undefined ? 1 : frames
  const size = `${width} x ${height}${counted > 1 ? ` x ${counted} frames` : ''} pixels`
  if (!(width * height * counted <= maxPixels)) {
    const message = `${name}: ${size}, more than the limit of ${maxPixels} (maxPixels).`
    return invalid('TooLarge', message, { name, width, height, frames, maxPixels })
  }
  if (given === undefined && width * height > WARNING_PIXELS)
    process.emitWarning(`${name}: ${size}; an image of unknown origin may be a decompression bomb.`, 'DecompressionBombWarning')
  return E.right(header)
}
