import { readFile, stat } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import sharp, { type Metadata, type Sharp } from 'sharp'
import { type Issues, invalid } from '../../lib/error.js'
import { type DownloadOptions, download } from '../media/fetch-media.js'
import { dataUrlBytes, isHttpUrl, localPath } from '../media/media-source.js'
import type { Rgb } from './resize.js'

/** Raw 8-bit pixels: grey, grey and alpha, RGB or RGBA, by the number of channels. */
export interface RawImage {
  readonly data: Uint8Array | Uint8ClampedArray
  readonly width: number
  readonly height: number
  readonly channels: 1 | 2 | 3 | 4
}

/** An image as a path, an http, https, file or data URL, the bytes of a file, a sharp instance, or raw pixels. */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | Blob | Sharp | RawImage

export interface OpenOptions extends DownloadOptions {
  /** Largest number of pixels of an image. Default: Pillow's limit. */
  readonly maxPixels?: number
  /** Transforms every image and frame after decoding, before resizing; must keep the size. */
  readonly retouch?: ((image: Rgb) => Promise<Rgb>) | undefined
}

/** An image whose header is read: its upright size in pixels, and a task that decodes its pixels. */
export interface OpenedImage {
  readonly name: string
  readonly width: number
  readonly height: number
  readonly decode: TaskEither<Issues, Rgb>
}

// Source: `Image.MAX_IMAGE_PIXELS`, twice which is Pillow's DecompressionBombError
const MAX_PIXELS = 178_956_970
const FORMATS = ['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif', 'jp2']

const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).trim().replaceAll('\n', '; ')

/** ICC profiles are ignored, as Pillow does; a truncated image is an error, not grey pixels. */
const openSharp = (bytes: Buffer): Sharp => sharp(bytes, { ignoreIcc: true, failOn: 'truncated', limitInputPixels: false })

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
const fromChannels = (data: ArrayLike<number>, pixels: number, channels: number): Uint8Array => {
  if (channels === 3 && data instanceof Uint8Array) return data
  const rgb = new Uint8Array(pixels * 3)
  const step = channels < 3 ? 0 : 1
  for (let i = 0; i < pixels; i++) for (let c = 0; c < 3; c++) rgb[i * 3 + c] = Math.min(255, data[i * channels + c * step]!)
  return rgb
}

interface Pixels {
  readonly data: Buffer
  readonly info: { readonly width: number; readonly height: number; readonly channels: number }
}

const rawPixels = (image: Sharp, depth: 'uchar' | 'ushort' = 'uchar'): Promise<Pixels> =>
  image.raw({ depth }).toBuffer({ resolveWithObject: true })

/** RGB pixels equal to `ImageOps.exif_transpose(image).convert('RGB')` of Pillow 13. */
const toRgb = async (image: Sharp, { space, channels }: Pick<Metadata, 'space' | 'channels'>): Promise<Rgb> => {
  const upright = image.autoOrient()
  if (space === 'cmyk') {
    const { data, info } = await rawPixels(upright.pipelineColourspace('cmyk').toColourspace('cmyk'))
    return { data: fromCmyk(data, info.width * info.height), width: info.width, height: info.height }
  }
  if (space === 'grey16' && channels === 1) {
    // Pillow's I;16 clips values above 255; of other 16-bit images Pillow drops the low byte
    const { data, info } = await rawPixels(upright.toColourspace('grey16'), 'ushort')
    const values = new Uint16Array(data.buffer, data.byteOffset, data.length / 2)
    return { data: fromChannels(values, values.length, 1), width: info.width, height: info.height }
  }
  const { data, info } = await rawPixels(upright.toColourspace('srgb').removeAlpha())
  return { data: fromChannels(data, info.width * info.height, info.channels), width: info.width, height: info.height }
}

/**
 * The GIF without a transparent colour in its first frame. Pillow keeps the palette colour of transparent pixels, libvips makes them black.
 * The flag is bit 0 of the graphic control extension's packed field.
 */
const withoutTransparency = (gif: Buffer): Buffer => {
  const bytes = Buffer.from(gif)
  const packed = bytes[10] ?? 0
  let at = 13 + (packed & 0x80 ? 3 * 2 ** ((packed & 7) + 1) : 0)
  while (bytes[at] === 0x21) {
    if (bytes[at + 1] === 0xf9) bytes[at + 3] = bytes[at + 3]! & 0xfe
    at += 2
    while (at < bytes.length && bytes[at] !== 0) at += bytes[at]! + 1
    at += 1
  }
  return bytes
}

type Load = () => Promise<Buffer>

/** Opens an image whose bytes `load` returns. They are loaded once for the header and again for the pixels, so no file stays in memory. */
const fromBytes = async (load: Load, name: string, maxPixels: number): Promise<E.Either<Issues, OpenedImage>> => {
  const notAnImage = (why: string) => invalid('NotAnImage', `${name}: not a readable image (${why}).`, { name })
  let header: Metadata
  try {
    const bytes = await load()
    if (bytes.length === 0) return invalid('Empty', `${name}: the image is empty (0 bytes).`, { name })
    header = await openSharp(bytes).metadata()
  } catch (error) {
    return notAnImage(messageOf(error))
  }
  if (!FORMATS.includes(header.format)) return notAnImage(`${header.format}; use ${FORMATS.join(', ')}`)
  const { width, height } = header.autoOrient
  if (width * height > maxPixels) {
    const message = `${name}: ${width} x ${height} pixels, more than the limit of ${maxPixels}.`
    return invalid('TooLarge', message, { name, width, height, maxPixels })
  }
  const decode: TaskEither<Issues, Rgb> = async () => {
    try {
      const bytes = await load()
      return E.right(await toRgb(openSharp(header.format === 'gif' ? withoutTransparency(bytes) : bytes), header))
    } catch (error) {
      return invalid('CorruptImage', `${name}: the image is damaged or truncated (${messageOf(error)}).`, { name })
    }
  }
  return E.right({ name, width, height, decode })
}

const fromBuffer = (bytes: Buffer, name: string, maxPixels: number): Promise<E.Either<Issues, OpenedImage>> =>
  fromBytes(async () => bytes, name, maxPixels)

const fromFile = async (path: string, maxPixels: number): Promise<E.Either<Issues, OpenedImage>> => {
  const info = await stat(path).catch(() => undefined)
  if (info === undefined) return invalid('NotFound', `${path}: no such image.`, { path })
  if (!info.isFile()) return invalid('NotAFile', `${path}: a folder, not an image.`, { path })
  // libvips caches by path, even where the file has changed, so it gets bytes
  return fromBytes(() => readFile(path), path, maxPixels)
}

const fromText = async (text: string, options: OpenOptions, maxPixels: number): Promise<E.Either<Issues, OpenedImage>> => {
  if (isHttpUrl(text)) {
    const bytes = await download(text, options)()
    return E.isLeft(bytes) ? bytes : fromBuffer(bytes.right, text, maxPixels)
  }
  const bytes = dataUrlBytes(text)
  if (bytes) return fromBuffer(bytes, 'data URL', maxPixels)
  const path = localPath(text)
  return E.isLeft(path) ? path : fromFile(path.right, maxPixels)
}

const isSharp = (source: object): source is Sharp => 'removeAlpha' in source && 'toColourspace' in source

const fromRaw = ({ data, width, height, channels }: RawImage): E.Either<Issues, OpenedImage> => {
  const name = 'raw pixels'
  const whole = [width, height].every((n) => Number.isInteger(n) && n > 0) && [1, 2, 3, 4].includes(channels)
  const length = (data as RawImage['data'] | undefined)?.length ?? 0
  if (!whole || length !== width * height * channels)
    return invalid('RawImage', `${name}: ${length} bytes are not ${width} x ${height} x ${channels}.`, {
      width,
      height,
      channels
    })
  return E.right({
    name,
    width,
    height,
    decode: async () => E.right({ data: fromChannels(data, width * height, channels), width, height })
  })
}

const fromSharp = async (image: Sharp): Promise<E.Either<Issues, OpenedImage>> => {
  try {
    const rgb = await toRgb(image.clone(), await image.metadata())
    return E.right({ name: 'sharp', width: rgb.width, height: rgb.height, decode: async () => E.right(rgb) })
  } catch (error) {
    return invalid('CorruptImage', `sharp: ${messageOf(error)}.`)
  }
}

/** Reads an image's header without decoding its pixels, except for a sharp instance, whose pipeline runs. */
export const openImage =
  (source: ImageSource, options: OpenOptions = {}): TaskEither<Issues, OpenedImage> =>
  async () => {
    const maxPixels = options.maxPixels ?? MAX_PIXELS
    if (typeof source === 'string') return fromText(source, options, maxPixels)
    if (source instanceof URL) return fromText(source.href, options, maxPixels)
    if (source instanceof Blob) return fromBuffer(Buffer.from(await source.arrayBuffer()), 'Blob', maxPixels)
    if (source instanceof ArrayBuffer) return fromBuffer(Buffer.from(source), 'ArrayBuffer', maxPixels)
    if (source instanceof Uint8Array)
      return fromBuffer(Buffer.from(source.buffer, source.byteOffset, source.byteLength), 'Buffer', maxPixels)
    if (typeof source === 'object' && source !== null && isSharp(source)) return fromSharp(source)
    if (typeof source === 'object' && source !== null && 'data' in source) return fromRaw(source)
    return invalid('NotAnImage', 'An image is a path, a URL, bytes, a Blob, a sharp instance or {data, width, height, channels}.')
  }

/** Pixels of an image: upright, 8-bit RGB, equal to Pillow's. */
export const readImage =
  (source: ImageSource, options: OpenOptions = {}): TaskEither<Issues, Rgb> =>
  async () => {
    const image = await openImage(source, options)()
    return E.isLeft(image) ? image : image.right.decode()
  }
