import { readFile } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Sharp } from 'sharp'
import { type Issues, invalid } from '../../lib/error.js'
import type { MediaOptions } from '../media/media-policy.js'
import { isBase64, openSource } from '../media/media-source.js'
import type { ImageCodec, ImageHeader } from './codecs/codec.js'
import { codecOf, isImage } from './codecs/image-format.js'
import { fromRawChannels, sharpHeader, sharpRgb } from './codecs/sharp-image.js'
import { checkPixels } from './pixel-limit.js'
import type { Rgb } from './resize.js'

/** Raw 8-bit pixels: grey, grey and alpha, RGB or RGBA, by the number of channels. */
export interface RawImage {
  readonly data: Uint8Array | Uint8ClampedArray
  readonly width: number
  readonly height: number
  readonly channels: 1 | 2 | 3 | 4
}

/** An image as a path, an http, https, file or data URL, base64, the bytes of a file, a sharp instance, or raw pixels. */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | Blob | Sharp | RawImage

export interface OpenOptions extends MediaOptions {
  /** Largest number of pixels of an image, with all its frames, or of a video's frame. Default: Pillow's limit, for the first frame. */
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

const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).trim().replaceAll('\n', '; ').replace(/\.$/, '')

type Load = () => Promise<Buffer>

/** Opens an image whose bytes `load` returns. They are loaded once for the header and again for the pixels, so no file stays in memory. */
const fromBytes = async (load: Load, name: string, maxPixels: number | undefined): Promise<E.Either<Issues, OpenedImage>> => {
  let codec: ImageCodec
  let header: ImageHeader
  try {
    const bytes = await load()
    if (bytes.length === 0) return invalid('Empty', `${name}: the image is empty (0 bytes).`, { name })
    codec = codecOf(bytes)
    header = await codec.header(bytes)
  } catch (error) {
    return invalid('NotAnImage', `${name}: not a readable image (${messageOf(error)}).`, { name })
  }
  const decode: TaskEither<Issues, Rgb> = async () => {
    try {
      return E.right(await codec.decode(await load()))
    } catch (error) {
      return invalid('CorruptImage', `${name}: the image is damaged or truncated (${messageOf(error)}).`, { name })
    }
  }
  return pipe(
    checkPixels(header, name, maxPixels),
    E.map(({ width, height }) => ({ name, width, height, decode }))
  )
}

const fromBuffer = (bytes: Buffer, name: string, { maxPixels }: OpenOptions): Promise<E.Either<Issues, OpenedImage>> =>
  fromBytes(async () => bytes, name, maxPixels)

const fromText = async (text: string, options: OpenOptions): Promise<E.Either<Issues, OpenedImage>> => {
  const file = await openSource(text, 'image', options, isImage)
  if (E.isLeft(file)) return file
  const { name, source } = file.right
  // libvips caches by path, even where the file has changed, so it gets bytes
  return typeof source === 'string'
    ? fromBytes(() => readFile(source), name, options.maxPixels)
    : fromBuffer(source, name, options)
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
    decode: async () => E.right({ data: fromRawChannels(data, width * height, channels), width, height })
  })
}

const fromSharp = async (image: Sharp, { maxPixels }: OpenOptions): Promise<E.Either<Issues, OpenedImage>> => {
  try {
    const metadata = await image.metadata()
    const allowed = checkPixels(sharpHeader(metadata), 'sharp', maxPixels)
    if (E.isLeft(allowed)) return allowed
    const rgb = await sharpRgb(image.clone(), metadata)
    return E.right({ name: 'sharp', width: rgb.width, height: rgb.height, decode: async () => E.right(rgb) })
  } catch (error) {
    return invalid('CorruptImage', `sharp: ${messageOf(error)}.`)
  }
}

/** Whether a text is an image as bare base64, rather than a path or a URL. */
export const isBase64Image = (text: string): boolean => isBase64(text) && isImage(Buffer.from(text.slice(0, 4096), 'base64'))

/** Reads an image's header without decoding its pixels, except for a sharp instance, whose pipeline runs. */
export const openImage =
  (source: ImageSource, options: OpenOptions = {}): TaskEither<Issues, OpenedImage> =>
  async () => {
    if (typeof source === 'string') return fromText(source, options)
    if (source instanceof URL) return fromText(source.href, options)
    if (source instanceof Blob) return fromBuffer(Buffer.from(await source.arrayBuffer()), 'Blob', options)
    if (source instanceof ArrayBuffer) return fromBuffer(Buffer.from(source), 'ArrayBuffer', options)
    if (source instanceof Uint8Array)
      return fromBuffer(Buffer.from(source.buffer, source.byteOffset, source.byteLength), 'Buffer', options)
    if (typeof source === 'object' && source !== null && isSharp(source)) return fromSharp(source, options)
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
