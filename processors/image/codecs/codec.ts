import type { Rgb } from '../resize.js'

/** Facts that an image's header tells: the upright size in pixels, and the number of frames or pages. */
export interface ImageHeader {
  readonly width: number
  readonly height: number
  readonly frames?: number
}

/** Decoder of an image format. Both functions throw an `Error` whose message completes a sentence about the file. */
export interface ImageCodec {
  readonly format: string
  /** Reads the header without decoding pixels. */
  readonly header: (bytes: Buffer) => ImageHeader | Promise<ImageHeader>
  /** Decodes the first frame: upright, 8-bit RGB, equal to `convert('RGB')` of Pillow 13. */
  readonly decode: (bytes: Buffer) => Rgb | Promise<Rgb>
}

/** Throws where bytes end before `length` of them from `start` on. */
export const expectBytes = (bytes: Uint8Array, start: number, length: number): void => {
  if (start + length > bytes.length) throw new Error(`it ends after ${bytes.length} of ${start + length} bytes`)
}

/** Throws, before memory is taken, where so few bytes cannot contain `length` values, of which a byte contains `perByte` at most. */
export const expectData = (bytes: number, length: number, perByte: number): void => {
  if (length > bytes * perByte) throw new Error(`it has ${Math.max(0, bytes)} bytes of data, too few for its size`)
}

/** Throws where a header's width or height is not a positive number. */
export const expectSize = <A extends ImageHeader>(header: A): A => {
  if (header.width > 0 && header.height > 0) return header
  throw new Error(`its header declares ${header.width} x ${header.height} pixels`)
}

/** 256 RGB colours. As in Pillow, indices beyond the palette are black. */
export const paddedPalette = (colours: Uint8Array): Uint8Array => {
  const palette = new Uint8Array(768)
  palette.set(colours.subarray(0, 768))
  return palette
}

/** RGB pixels of palette indices. */
export const fromIndices = (indices: Uint8Array, palette: Uint8Array): Uint8Array => {
  const rgb = new Uint8Array(indices.length * 3)
  for (let i = 0; i < indices.length; i++) for (let c = 0; c < 3; c++) rgb[i * 3 + c] = palette[indices[i]! * 3 + c]!
  return rgb
}

/** RGB pixels of grey values. */
export const fromGrey = (grey: Uint8Array): Uint8Array => {
  const rgb = new Uint8Array(grey.length * 3)
  for (let i = 0; i < grey.length; i++) rgb.fill(grey[i]!, i * 3, i * 3 + 3)
  return rgb
}

/** Rows of packed values of 1, 2, 4 or 8 bits, highest bits first, as one byte a value. `stride` is the bytes of a packed row. */
export const unpackBits = (bytes: Uint8Array, bits: number, width: number, height: number, stride: number): Uint8Array => {
  const [mask, perByte] = [(1 << bits) - 1, 8 / bits]
  const out = new Uint8Array(width * height)
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      out[y * width + x] = (bytes[y * stride + Math.floor(x / perByte)]! >> (8 - bits - (x % perByte) * bits)) & mask
  return out
}

/** The rows of RGB pixels in reverse order. */
export const flipRows = (rgb: Uint8Array, width: number): Uint8Array => {
  const [out, stride] = [new Uint8Array(rgb.length), width * 3]
  for (let at = 0; at < rgb.length; at += stride) out.set(rgb.subarray(at, at + stride), rgb.length - at - stride)
  return out
}
