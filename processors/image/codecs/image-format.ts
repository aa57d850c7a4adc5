import { bmp } from './bmp.js'
import type { ImageCodec } from './codec.js'
import { gif } from './gif.js'
import { heic } from './heic.js'
import { ico } from './ico.js'
import { isJpeg2000, jpeg2000 } from './jpeg2000.js'
import { isNetpbm, netpbm } from './netpbm.js'
import { sharpCodec } from './sharp-image.js'
import { isTga, tga } from './tga.js'
import { tiff } from './tiff.js'

/** Formats that are read, for messages. */
const IMAGE_FORMATS = 'JPEG, PNG, WebP, GIF, TIFF, AVIF, HEIC, BMP, ICO, TGA, PPM, PGM, PBM, PFM and JPEG 2000'

/** Extensions of image files, by which a folder's frames are found. */
export const IMAGE_EXTENSIONS = /\.(jpe?g|png|webp|gif|tiff?|avif|hei[cf]|bmp|ico|tga|p[bgpf]m|jp2|j2k)$/i

type Signature = readonly [matches: (bytes: Buffer) => boolean, codec: ImageCodec]

const startsWith =
  (text: string, at = 0) =>
  (bytes: Buffer): boolean =>
    bytes.toString('latin1', at, at + text.length) === text

/** Brand of an ISO base media file: the type of a HEIF image, such as `heic` or `avif`. */
const brandOf = (bytes: Buffer): string => (bytes.toString('latin1', 4, 8) === 'ftyp' ? bytes.toString('latin1', 8, 12) : '')

const HEVC_BRANDS = ['heic', 'heix', 'heim', 'heis', 'hevc', 'hevx']

/** Whether a HEIF file with a brand of all codecs is coded in HEVC. */
const isHevc = (bytes: Buffer): boolean =>
  HEVC_BRANDS.includes(brandOf(bytes)) || (['mif1', 'msf1'].includes(brandOf(bytes)) && bytes.subarray(0, 4096).includes('hvc1'))

const signatures: readonly Signature[] = [
  [startsWith('\xff\xd8\xff'), sharpCodec('jpeg')],
  [startsWith('\x89PNG\r\n\x1a\n'), sharpCodec('png')],
  [startsWith('GIF87a'), gif],
  [startsWith('GIF89a'), gif],
  [(bytes) => startsWith('RIFF')(bytes) && startsWith('WEBP', 8)(bytes), sharpCodec('webp')],
  [startsWith('II*\0'), tiff],
  [startsWith('MM\0*'), tiff],
  [startsWith('II+\0'), tiff],
  [startsWith('MM\0+'), tiff],
  [isHevc, heic],
  [(bytes) => ['avif', 'avis', 'mif1', 'msf1'].includes(brandOf(bytes)), sharpCodec('heif')],
  [startsWith('BM'), bmp],
  [startsWith('\0\0\x01\0'), ico],
  [isJpeg2000, jpeg2000],
  [isNetpbm, netpbm]
]

/** Formats that are recognized but not read, so that messages can name them. */
const others: readonly (readonly [matches: (bytes: Buffer) => boolean, name: string])[] = [
  [startsWith('8BPS'), 'a Photoshop document (PSD)'],
  [startsWith('\xff\x0a'), 'a JPEG XL image'],
  [startsWith('JXL ', 4), 'a JPEG XL image'],
  [startsWith('%PDF'), 'a PDF document'],
  [startsWith('qoif'), 'a QOI image'],
  [startsWith('DDS '), 'a DirectDraw surface (DDS)'],
  [startsWith('\x76\x2f\x31\x01'), 'an OpenEXR image'],
  [startsWith('#?RADIANCE'), 'a Radiance image (HDR)'],
  [startsWith('icns'), 'an icon of macOS (ICNS)'],
  [startsWith('PF'), 'a PFM image in colours'],
  [startsWith('P7'), 'a PAM image'],
  [startsWith('ftypqt', 4), 'a QuickTime video'],
  [(bytes) => startsWith('ftyp', 4)(bytes), 'a video or another file of the MPEG-4 family'],
  [startsWith('\x1a\x45\xdf\xa3'), 'a Matroska or WebM video'],
  [(bytes) => /^\s*<(\?xml|svg|!DOCTYPE svg)/i.test(bytes.toString('latin1', 0, 200)), 'an SVG drawing or another XML file'],
  [(bytes) => /^\s*<(!DOCTYPE )?html/i.test(bytes.toString('latin1', 0, 200)), 'a web page (HTML), not an image']
]

/** The decoder of an image by its first bytes; the name plays no part. Throws an `Error` that names the format where none reads it. */
export const codecOf = (bytes: Buffer): ImageCodec => {
  const known = signatures.find(([matches]) => matches(bytes))
  if (known) return known[1]
  const other = others.find(([matches]) => matches(bytes))
  if (other) throw new Error(`${other[1]}; convert it to PNG or JPEG; formats that are read: ${IMAGE_FORMATS}`)
  if (isTga(bytes)) return tga
  throw new Error(`unknown format; formats that are read: ${IMAGE_FORMATS}`)
}

/** Whether bytes begin as an image of a format that is read. */
export const isImage = (bytes: Buffer): boolean => isTga(bytes) || signatures.some(([matches]) => matches(bytes))
