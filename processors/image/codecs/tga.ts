import {
  expectBytes,
  expectData,
  flipRows,
  fromGrey,
  fromIndices,
  type ImageCodec,
  type ImageHeader,
  paddedPalette,
  unpackBits
} from './codec.js'

interface Header extends ImageHeader {
  /** 1 palette, 2 colours, 3 grey. */
  readonly kind: number
  readonly isRunLength: boolean
  readonly depth: number
  readonly isTopDown: boolean
  readonly isMirrored: boolean
  readonly palette: Uint8Array
  readonly pixels: number
}

/** Colours of 15 bits to 8 bits, truncated as in Pillow. */
const from15 = (pixel: number): readonly number[] => [10, 5, 0].map((shift) => Math.trunc((((pixel >> shift) & 31) * 255) / 31))

/** RGB of little-endian colours of 16, 24 or 32 bits. */
const fromColours = (bytes: Buffer, depth: number, count: number): Uint8Array => {
  const step = depth / 8
  const rgb = new Uint8Array(count * 3)
  for (let i = 0; i < count; i++) {
    if (depth === 16) rgb.set(from15(bytes.readUInt16LE(i * 2)), i * 3)
    else for (let c = 0; c < 3; c++) rgb[i * 3 + c] = bytes[i * step + 2 - c]!
  }
  return rgb
}

/**
 * Whether bytes may be a Targa file. The format has no signature, so other formats are tried before.
 *
 * Source: `TgaImageFile._open` (Pillow 13).
 */
export const isTga = (bytes: Buffer): boolean =>
  bytes.length > 18 &&
  bytes[1]! <= 1 &&
  [1, 2, 3, 9, 10, 11].includes(bytes[2]!) &&
  [1, 8, 16, 24, 32].includes(bytes[16]!) &&
  bytes.readUInt16LE(12) > 0 &&
  bytes.readUInt16LE(14) > 0

const headerOf = (bytes: Buffer): Header => {
  const [width, height, depth, flags] = [bytes.readUInt16LE(12), bytes.readUInt16LE(14), bytes[16]!, bytes[17]!]
  const [kind, start, count, mapDepth] = [bytes[2]! & 7, bytes.readUInt16LE(3), bytes.readUInt16LE(5), bytes[7]!]
  const hasMap = bytes[1] === 1
  if (hasMap && ![16, 24, 32].includes(mapDepth)) throw new Error(`a TGA with palette colours of ${mapDepth} bits`)
  const isKnown = (kind === 1 && depth === 8 && hasMap) || (kind === 2 && depth >= 16) || (kind === 3 && depth <= 16)
  if (!isKnown) throw new Error(`a TGA of type ${bytes[2]} with ${depth} bits a pixel`)
  const mapAt = 18 + bytes[0]!
  const mapLength = hasMap ? (count * mapDepth) / 8 : 0
  expectBytes(bytes, mapAt, mapLength)
  const colours = new Uint8Array((start + count) * 3)
  if (hasMap) colours.set(fromColours(bytes.subarray(mapAt), mapDepth, count), start * 3)
  return {
    ...{ width, height, kind, depth },
    isRunLength: (bytes[2]! & 8) !== 0,
    isTopDown: (flags & 0x20) !== 0,
    isMirrored: (flags & 0x10) !== 0,
    palette: paddedPalette(colours),
    pixels: mapAt + mapLength
  }
}

/** Expands runs of pixels of `step` bytes. A packet begins with its kind (highest bit) and its number of pixels minus one. */
const expandRuns = (bytes: Buffer, start: number, step: number, length: number): Buffer => {
  expectData(bytes.length - start, length, 128)
  const out = Buffer.alloc(length)
  let [at, filled] = [start, 0]
  while (filled < length) {
    expectBytes(bytes, at, 1)
    const head = bytes[at++]!
    const isRun = head >= 128
    const size = Math.min(((head & 127) + 1) * step, length - filled)
    expectBytes(bytes, at, isRun ? step : size)
    if (isRun) out.fill(bytes.subarray(at, at + step), filled, filled + size)
    else bytes.copy(out, filled, at, at + size)
    at += isRun ? step : size
    filled += size
  }
  return out
}

const mirrored = (rgb: Uint8Array, width: number): Uint8Array => {
  const out = new Uint8Array(rgb.length)
  for (let i = 0; i * 3 < rgb.length; i++) {
    const to = i - (i % width) + width - 1 - (i % width)
    for (let c = 0; c < 3; c++) out[to * 3 + c] = rgb[i * 3 + c]!
  }
  return out
}

const pixelsOf = (bytes: Buffer, header: Header): Uint8Array => {
  const { width, height, kind, depth, palette, isRunLength, pixels } = header
  const [count, stride] = [width * height, Math.ceil((width * depth) / 8)]
  if (!isRunLength) expectBytes(bytes, pixels, stride * height)
  const body = isRunLength
    ? expandRuns(bytes, pixels, Math.ceil(depth / 8), stride * height)
    : bytes.subarray(pixels, pixels + stride * height)
  if (kind === 1) return fromIndices(body, palette)
  if (kind === 2) return fromColours(body, depth, count)
  if (depth === 1) return fromGrey(unpackBits(body, 1, width, height, stride).map((bit) => -bit))
  return fromGrey(depth === 8 ? body : Uint8Array.from({ length: count }, (_, i) => body[i * 2]!))
}

/** Targa images: palettes, grey, 16, 24 and 32 bits, run-length encoding. */
export const tga: ImageCodec = {
  format: 'tga',
  header: headerOf,
  decode: (bytes) => {
    const header = headerOf(bytes)
    const { width, height, isTopDown, isMirrored } = header
    const stored = pixelsOf(bytes, header)
    const rows = isTopDown ? stored : flipRows(stored, width)
    return { data: isMirrored ? mirrored(rows, width) : rows, width, height }
  }
}
