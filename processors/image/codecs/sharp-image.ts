import sharp, { type Metadata, type Sharp } from 'sharp'
import type { Rgb } from '../resize.js'
import type { ImageCodec, ImageHeader } from './codec.js'
import { orient, uprightSize, xmpOrientation } from './orientation.js'
import { tiffValue } from './tiff-directory.js'

/** ICC profiles are ignored, as Pillow does; a truncated image is an error, not grey pixels. The caller limits the number of pixels. */
export const openSharp = (bytes: Buffer): Sharp => sharp(bytes, { ignoreIcc: true, failOn: 'truncated', limitInputPixels: false })

const divide255 = (product: number): number => (product + 128 + ((product + 128) >> 8)) >> 8

/** Pillow's `cmyk2rgb`; libvips would apply an ICC profile. */
const fromCmyk = (cmyk: Uint8Array, pixels: number): Uint8Array => {
  const rgb = new Uint8Array(pixels * 3)
  for (let i = 0; i < pixels; i++) {
    const light = 255 - cmyk[i * 4 + 3]!
    for (let c = 0; c < 3; c++) rgb[i * 3 + c] = light - divide255(cmyk[i * 4 + c]! * light)
  }
  return rgb
}

/** 8-bit RGB from 1 (grey), 2 (grey, alpha), 3 or 4 (alpha) channels; alpha is dropped, as `convert('RGB')` does. */
export const fromChannels = (data: ArrayLike<number>, pixels: number, channels: number): Uint8Array => {
  if (channels === 3 && data instanceof Uint8Array) return data
  const rgb = new Uint8Array(pixels * 3)
  const step = channels < 3 ? 0 : 1
  for (let i = 0; i < pixels; i++) for (let c = 0; c < 3; c++) rgb[i * 3 + c] = Math.min(255, data[i * channels + c * step]!)
  return rgb
}

const unit = Math.fround(1 / 255)

/**
 * A value of 8 bits over white by its alpha of 8 bits, in float32. Source: `TorchvisionBackend.convert_to_rgb` (transformers 5.24), which blends
 * arrays of four channels; files keep the colours below their alpha.
 */
const overWhite = (value: number, alpha: number): number => {
  const [x, a] = [Math.fround(value * unit), Math.fround(alpha * unit)]
  const blended = Math.fround(Math.fround(x * a) + Math.fround(1 - a))
  return Math.trunc(Math.fround(blended * Math.fround(255.999)))
}

/** `fromChannels` of raw pixels: transparent ones are blended over white. */
export const fromRawChannels = (data: ArrayLike<number>, pixels: number, channels: number): Uint8Array => {
  if (channels % 2 === 1) return fromChannels(data, pixels, channels)
  const colours = channels - 1
  const rgb = new Uint8Array(pixels * 3)
  for (let i = 0; i < pixels; i++) {
    const at = i * channels
    for (let c = 0; c < 3; c++) rgb[i * 3 + c] = overWhite(data[at + Math.min(c, colours - 1)]!, data[at + colours]!)
  }
  return rgb
}

interface Pixels {
  readonly data: Buffer
  readonly info: { readonly width: number; readonly height: number; readonly channels: number }
}

const rawPixels = (image: Sharp, depth: 'uchar' | 'ushort' = 'uchar'): Promise<Pixels> =>
  image.raw({ depth }).toBuffer({ resolveWithObject: true })

/** RGB pixels equal to `ImageOps.exif_transpose(image).convert('RGB')` of Pillow 13. */
export const sharpRgb = async (image: Sharp, metadata: Metadata): Promise<Rgb> => {
  const { space, channels } = metadata
  const upright = image.autoOrient()
  const turned = (rgb: Rgb): Rgb => orient(rgb, xmpOrientation(metadata))
  if (space === 'cmyk') {
    const { data, info } = await rawPixels(upright.pipelineColourspace('cmyk').toColourspace('cmyk'))
    return turned({ data: fromCmyk(data, info.width * info.height), width: info.width, height: info.height })
  }
  if (space === 'grey16' && channels === 1) {
    // Pillow's I;16 clips values above 255; of other 16-bit images Pillow drops the low byte
    const { data, info } = await rawPixels(upright.toColourspace('grey16'), 'ushort')
    const values = new Uint16Array(data.buffer, data.byteOffset, data.length / 2)
    return turned({ data: fromChannels(values, values.length, 1), width: info.width, height: info.height })
  }
  const { data, info } = await rawPixels(upright.toColourspace('srgb').removeAlpha())
  return turned({ data: fromChannels(data, info.width * info.height, info.channels), width: info.width, height: info.height })
}

/** Upright size and number of pages of an image that libvips has opened. */
export const sharpHeader = (metadata: Metadata): ImageHeader => ({
  ...uprightSize(metadata.autoOrient, xmpOrientation(metadata)),
  frames: metadata.pages ?? 1
})

const ORIENTATION = 274

const metadataOf = async (bytes: Buffer): Promise<Metadata> => {
  const { orientation, ...metadata } = await openSharp(bytes).metadata()
  // libvips tells 1 for a TIFF without the tag
  const isStated = orientation !== undefined && !(metadata.format === 'tiff' && tiffValue(bytes, ORIENTATION) === undefined)
  return isStated ? { ...metadata, orientation } : metadata
}

/** Decoder of libvips: JPEG, PNG, WebP, TIFF, AVIF. */
export const sharpCodec = (format: string): ImageCodec => ({
  format,
  header: async (bytes) => sharpHeader(await metadataOf(bytes)),
  decode: async (bytes) => sharpRgb(openSharp(bytes), await metadataOf(bytes))
})
