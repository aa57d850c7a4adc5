import { readFile, stat } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import sharp, { type Metadata, type Sharp } from 'sharp'
import type { Issues } from '../../lib/error.js'
import { invalid } from '../collect.js'
import { type DownloadOptions, download } from '../media/fetch-media.js'
import { bytesIn, isAddress, pathIn } from '../media/media-source.js'
import type { Rgb } from './resize.js'

/** Pixels as they are, 8 bits each: grey, grey and alpha, RGB or RGBA, by the number of channels. */
export interface RawImage {
  readonly data: Uint8Array | Uint8ClampedArray
  readonly width: number
  readonly height: number
  readonly channels: 1 | 2 | 3 | 4
}

/** A path, an http, https, file or data URL, the bytes of a file, a sharp instance, or raw pixels. */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | Blob | Sharp | RawImage

export interface OpenOptions extends DownloadOptions {
  /** Pictures of more pixels are refused; Pillow's own limit unless given. */
  readonly maxPixels?: number
  /** Applied to every picture and frame once it is decoded, before it is resized; it may not change its size. */
  readonly retouch?: ((image: Rgb) => Promise<Rgb>) | undefined
}

/** A picture whose header is read: its size upright, in pixels, and the way to its pixels. */
export interface Picture {
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

/** Pillow ignores ICC profiles, and so do we; a picture cut short is an error, never grey pixels. */
const open = (bytes: Buffer): Sharp => sharp(bytes, { ignoreIcc: true, failOn: 'truncated', limitInputPixels: false })

const divide255 = (product: number): number => (product + 128 + ((product + 128) >> 8)) >> 8

/** Pillow's `cmyk2rgb`; libvips would go through an ICC profile. */
const fromCmyk = (cmyk: Uint8Array, pixels: number): Uint8Array => {
  const rgb = new Uint8Array(pixels * 3)
  for (let i = 0; i < pixels; i++) {
    const light = 255 - cmyk[i * 4 + 3]!
    for (let c = 0; c < 3; c++) rgb[i * 3 + c] = light - divide255(cmyk[i * 4 + c]! * light)
  }
  return rgb
}

/** 8-bit RGB from 1 (grey), 2 (grey, alpha), 3 or 4 (alpha) channels; alpha is dropped, as by `convert('RGB')`. */
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

const raw = (image: Sharp, depth: 'uchar' | 'ushort' = 'uchar'): Promise<Pixels> =>
  image.raw({ depth }).toBuffer({ resolveWithObject: true })

/** What `ImageOps.exif_transpose(image).convert('RGB')` gives in Pillow 13. */
const toRgb = async (image: Sharp, { space, channels }: Pick<Metadata, 'space' | 'channels'>): Promise<Rgb> => {
  const upright = image.autoOrient()
  if (space === 'cmyk') {
    const { data, info } = await raw(upright.pipelineColourspace('cmyk').toColourspace('cmyk'))
    return { data: fromCmyk(data, info.width * info.height), width: info.width, height: info.height }
  }
  if (space === 'grey16' && channels === 1) {
    // Pillow's I;16 clips what is above 255, where other 16-bit pictures lose their low byte
    const { data, info } = await raw(upright.toColourspace('grey16'), 'ushort')
    const values = new Uint16Array(data.buffer, data.byteOffset, data.length / 2)
    return { data: fromChannels(values, values.length, 1), width: info.width, height: info.height }
  }
  const { data, info } = await raw(upright.toColourspace('srgb').removeAlpha())
  return { data: fromChannels(data, info.width * info.height, info.channels), width: info.width, height: info.height }
}

/**
 * A GIF whose first frame has no transparent colour: Pillow gives such pixels their colour of the palette, libvips black.
 * The flag is bit 0 of the graphic control extension's packed field.
 */
const opaqueGif = (gif: Buffer): Buffer => {
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

/** A picture whose bytes `load` brings, once for the header and once for the pixels: a file is never kept in memory. */
const fromBytes = async (load: Load, name: string, maxPixels: number): Promise<E.Either<Issues, Picture>> => {
  const notAPicture = (why: string) => invalid('NotAPicture', `${name}: not a picture that can be read (${why}).`, { name })
  let header: Metadata
  try {
    const bytes = await load()
    if (bytes.length === 0) return invalid('Empty', `${name}: the picture is empty (0 bytes).`, { name })
    header = await open(bytes).metadata()
  } catch (error) {
    return notAPicture(messageOf(error))
  }
  if (!FORMATS.includes(header.format)) return notAPicture(`${header.format}; use ${FORMATS.join(', ')}`)
  const { width, height } = header.autoOrient
  if (width * height > maxPixels) {
    const message = `${name}: ${width} x ${height} pixels, more than the limit of ${maxPixels}.`
    return invalid('TooLarge', message, { name, width, height, maxPixels })
  }
  const decode: TaskEither<Issues, Rgb> = async () => {
    try {
      const bytes = await load()
      return E.right(await toRgb(open(header.format === 'gif' ? opaqueGif(bytes) : bytes), header))
    } catch (error) {
      return invalid('CorruptPicture', `${name}: the picture is damaged or cut short (${messageOf(error)}).`, { name })
    }
  }
  return E.right({ name, width, height, decode })
}

const fromBuffer = (bytes: Buffer, name: string, maxPixels: number): Promise<E.Either<Issues, Picture>> =>
  fromBytes(async () => bytes, name, maxPixels)

const fromFile = async (path: string, maxPixels: number): Promise<E.Either<Issues, Picture>> => {
  const info = await stat(path).catch(() => undefined)
  if (info === undefined) return invalid('NotFound', `${path}: no such picture.`, { path })
  if (!info.isFile()) return invalid('NotAFile', `${path}: a folder, not a picture.`, { path })
  // bytes rather than the path: libvips keeps what it once read of a path, though the file has changed
  return fromBytes(() => readFile(path), path, maxPixels)
}

const fromText = async (text: string, options: OpenOptions, maxPixels: number): Promise<E.Either<Issues, Picture>> => {
  if (isAddress(text)) {
    const bytes = await download(text, options)()
    return E.isLeft(bytes) ? bytes : fromBuffer(bytes.right, text, maxPixels)
  }
  const bytes = bytesIn(text)
  if (bytes) return fromBuffer(bytes, 'data URL', maxPixels)
  const path = pathIn(text)
  return E.isLeft(path) ? path : fromFile(path.right, maxPixels)
}

const isSharp = (source: object): source is Sharp => 'removeAlpha' in source && 'toColourspace' in source

const fromRaw = ({ data, width, height, channels }: RawImage): E.Either<Issues, Picture> => {
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

const fromSharp = async (image: Sharp): Promise<E.Either<Issues, Picture>> => {
  try {
    const rgb = await toRgb(image.clone(), await image.metadata())
    return E.right({ name: 'sharp', width: rgb.width, height: rgb.height, decode: async () => E.right(rgb) })
  } catch (error) {
    return invalid('CorruptPicture', `sharp: ${messageOf(error)}.`)
  }
}

/** Reads a picture's header: its size is known, its pixels are not decoded (but for a sharp instance, whose steps must run). */
export const openPicture =
  (source: ImageSource, options: OpenOptions = {}): TaskEither<Issues, Picture> =>
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
    return invalid(
      'NotAPicture',
      'A picture is a path, a URL, bytes, a Blob, a sharp instance or {data, width, height, channels}.'
    )
  }

/** A picture's pixels, upright, 8-bit RGB, equal to Pillow's. */
export const readImage =
  (source: ImageSource, options: OpenOptions = {}): TaskEither<Issues, Rgb> =>
  async () => {
    const picture = await openPicture(source, options)()
    return E.isLeft(picture) ? picture : picture.right.decode()
  }
