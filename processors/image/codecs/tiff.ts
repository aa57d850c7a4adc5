import type { ImageCodec } from './codec.js'
import { sharpCodec } from './sharp-image.js'
import { tiffValue } from './tiff-directory.js'

const PHOTOMETRIC = 262
/** CIELAB, ICC LAB and ITU LAB. Source: TIFF 6.0, section 23. */
const LAB = [8, 9, 10]

const libvips = sharpCodec('tiff')

/** TIFF images of which libvips decodes the colours; Pillow converts CIELAB by LittleCMS, for which npm has no good package. */
export const tiff: ImageCodec = {
  ...libvips,
  header: (bytes) => {
    if (!LAB.includes(tiffValue(bytes, PHOTOMETRIC) ?? 0)) return libvips.header(bytes)
    throw new Error(
      'a TIFF in CIELAB colours; convert it to RGB, for example with ImageMagick: magick in.tiff -colorspace sRGB out.png'
    )
  }
}
