import {
  expectBytes,
  expectData,
  expectSize,
  flipRows,
  fromIndices,
  type ImageCodec,
  paddedPalette,
  unpackBits
} from './codec.js'

/** Header of a device-independent bitmap, the inner part of BMP and ICO files. */
export interface Dib {
  readonly width: number
  readonly height: number
  readonly isTopDown: boolean
  readonly bits: number
  /** 0 none, 1 RLE with 8 bits, 2 RLE with 4 bits, 3 bit masks. */
  readonly compression: number
  /** Masks of red, green and blue. */
  readonly masks: readonly [number, number, number]
  readonly palette: Uint8Array
  /** Position of the pixels in the file. */
  readonly pixels: number
}

const DEPTHS = [1, 4, 8, 16, 24, 32]
const HEADERS = [12, 40, 52, 56, 64, 108, 124]
const [NONE, RLE8, RLE4, BITFIELDS] = [0, 1, 2, 3]

const paletteAt = (bytes: Buffer, start: number, colours: number, step: number): Uint8Array => {
  expectBytes(bytes, start, colours * step)
  const rgb = new Uint8Array(colours * 3)
  for (let i = 0; i < colours; i++) for (let c = 0; c < 3; c++) rgb[i * 3 + c] = bytes[start + i * step + 2 - c]!
  return paddedPalette(rgb)
}

const maskedBy = (bits: number, [red, green, blue]: readonly [number, number, number]): Dib['masks'] => {
  const masks = [red, green, blue] as const
  const isKnown =
    bits === 16
      ? ['63488,2016,31', '31744,992,31'].includes(String(masks))
      : bits === 24
        ? String(masks) === '16711680,65280,255'
        : bits === 32 && masks.every((mask) => [0xff, 0xff00, 0xff0000, 0xff000000].includes(mask)) && new Set(masks).size === 3
  if (!isKnown) throw new Error(`a BMP of ${bits} bits with the unusual colour masks ${masks.map((mask) => mask.toString(16))}`)
  return masks
}

/** The usual order of colours in 16, 24 and 32 bits. */
const usualMasks = (bits: number): Dib['masks'] => (bits === 16 ? [0x7c00, 0x3e0, 0x1f] : [0xff0000, 0xff00, 0xff])

/** Reads a bitmap's header at `start`; `pixels` is the position of its pixels where the file tells. Source: `BmpImageFile._bitmap` (Pillow 13). */
export const readDib = (bytes: Buffer, start: number, pixels = 0): Dib => {
  expectBytes(bytes, start, 4)
  const size = bytes.readUInt32LE(start)
  if (!HEADERS.includes(size)) throw new Error(`a BMP with an unknown header of ${size} bytes`)
  expectBytes(bytes, start, size)
  const isOld = size === 12
  const isTopDown = !isOld && bytes[start + 11] === 0xff
  const height = isOld
    ? bytes.readUInt16LE(start + 6)
    : Math.abs(isTopDown ? bytes.readInt32LE(start + 8) : bytes.readUInt32LE(start + 8))
  const width = isOld ? bytes.readUInt16LE(start + 4) : bytes.readUInt32LE(start + 4)
  const bits = bytes.readUInt16LE(start + (isOld ? 10 : 14))
  const compression = isOld ? NONE : bytes.readUInt32LE(start + 16)
  if (!DEPTHS.includes(bits)) throw new Error(`a BMP of ${bits} bits a pixel; known are ${DEPTHS.join(', ')}`)
  if (compression > BITFIELDS) throw new Error(`a BMP with compression ${compression}, which is not read`)
  let end = start + size
  let masks = usualMasks(bits)
  if (compression === BITFIELDS) {
    expectBytes(bytes, start + 40, 12) // behind a header of 40 bytes, or inside a longer one
    const [red, green, blue] = [40, 44, 48].map((at) => bytes.readUInt32LE(start + at)) as [number, number, number]
    masks = red + green + blue === 0 && bits === 32 ? masks : maskedBy(bits, [red, green, blue])
    if (size === 40) end += 12
  }
  const colours = (!isOld && bytes.readUInt32LE(start + 32)) || 2 ** bits
  const step = isOld ? 3 : 4
  if (bits <= 8 && colours > 65536) throw new Error(`a BMP with a palette of ${colours} colours`)
  const palette = bits <= 8 ? paletteAt(bytes, end, colours, step) : new Uint8Array(0)
  const afterPalette = end + (bits <= 8 ? colours * step : 0)
  // some files leave the palette out of the position of their pixels
  const isBeforePalette = bits <= 8 && pixels === start + size
  return expectSize({
    width,
    height,
    isTopDown,
    bits,
    compression,
    masks,
    palette,
    pixels: isBeforePalette ? afterPalette : pixels || afterPalette
  })
}

/** Palette indices of run-length encoded pixels, in file order. Source: `BmpRleDecoder` (Pillow 13). */
const unpackRuns = (bytes: Buffer, { width, height, compression, pixels }: Dib): Uint8Array => {
  const is4 = compression === RLE4
  expectData(bytes.length - pixels, width * height, 2 ** 14) // a jump of four bytes passes over 255 rows of 255 pixels
  const out = new Uint8Array(width * height)
  const index = (at: number, i: number): number => (is4 ? (bytes[at + (i >> 1)]! >> (i % 2 === 0 ? 4 : 0)) & 15 : bytes[at + i]!)
  let [at, filled, x] = [pixels, 0, 0]
  while (filled < out.length) {
    expectBytes(bytes, at, 2)
    const [count, value] = [bytes[at]!, bytes[at + 1]!]
    at += 2
    if (count > 0) {
      const run = Math.min(count, Math.max(0, width - x), out.length - filled)
      for (let i = 0; i < run; i++) out[filled + i] = is4 ? (i % 2 === 0 ? value >> 4 : value & 15) : value
      filled += run
      x += run
    } else if (value === 0) {
      filled = Math.ceil(filled / width) * width
      x = 0
    } else if (value === 1) break
    else if (value === 2) {
      expectBytes(bytes, at, 2)
      filled = Math.min(out.length, filled + bytes[at]! + bytes[at + 1]! * width)
      x = filled % width
      at += 2
    } else {
      const run = Math.min(value, out.length - filled)
      const length = is4 ? (run + 1) >> 1 : run
      expectBytes(bytes, at, length)
      for (let i = 0; i < run; i++) out[filled + i] = index(at, i)
      filled += run
      x += value
      at += length
      at += at % 2 // runs are aligned to 16 bits
    }
  }
  if (filled < out.length) throw new Error(`it has ${filled} of ${out.length} pixels`)
  return out
}

/** Colours of 16 bits. Pillow truncates `value · 255 / 31`. */
const from16 = (row: Buffer, width: number, hasSixGreenBits: boolean, out: Uint8Array, at: number): void => {
  for (let x = 0; x < width; x++) {
    const pixel = row.readUInt16LE(x * 2)
    const green = (pixel >> 5) & (hasSixGreenBits ? 63 : 31)
    out[at + x * 3] = Math.trunc((((pixel >> (hasSixGreenBits ? 11 : 10)) & 31) * 255) / 31)
    out[at + x * 3 + 1] = Math.trunc((green * 255) / (hasSixGreenBits ? 63 : 31))
    out[at + x * 3 + 2] = Math.trunc(((pixel & 31) * 255) / 31)
  }
}

const fromBytes = (row: Buffer, width: number, step: number, offsets: readonly number[], out: Uint8Array, at: number): void => {
  for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) out[at + x * 3 + c] = row[x * step + offsets[c]!]!
}

/** RGB pixels of a bitmap, top row first; alpha is dropped. */
export const decodeDib = (bytes: Buffer, dib: Dib): Uint8Array => {
  const { width, height, bits, compression, palette, masks, isTopDown, pixels } = dib
  const upright = (rgb: Uint8Array): Uint8Array => (isTopDown ? rgb : flipRows(rgb, width))
  if (compression === RLE8 || compression === RLE4) return upright(fromIndices(unpackRuns(bytes, dib), palette))
  const stride = Math.floor((width * bits + 31) / 32) * 4
  expectBytes(bytes, pixels, stride * (height - 1) + Math.ceil((width * bits) / 8))
  const body = bytes.subarray(pixels)
  if (bits <= 8) return upright(fromIndices(unpackBits(body, bits, width, height, stride), palette))
  const rgb = new Uint8Array(width * height * 3)
  const offsets = masks.map((mask) => Math.log2(mask / 255) / 8)
  for (let y = 0; y < height; y++) {
    const row = body.subarray(y * stride)
    if (bits === 16) from16(row, width, masks[0] === 0xf800, rgb, y * width * 3)
    else fromBytes(row, width, bits / 8, offsets, rgb, y * width * 3)
  }
  return upright(rgb)
}

const dibOf = (bytes: Buffer): Dib => {
  expectBytes(bytes, 0, 18)
  return readDib(bytes, 14, bytes.readUInt32LE(10))
}

/** Windows and OS/2 bitmaps: 1, 4, 8, 16, 24 and 32 bits, run-length encoding, bit masks. */
export const bmp: ImageCodec = {
  format: 'bmp',
  header: dibOf,
  decode: (bytes) => {
    const dib = dibOf(bytes)
    return { data: decodeDib(bytes, dib), width: dib.width, height: dib.height }
  }
}
