import { decodeDib, readDib } from './bmp.js'
import { expectBytes, type ImageCodec, type ImageHeader } from './codec.js'
import { sharpCodec } from './sharp-image.js'

interface Entry {
  readonly start: number
  readonly pixels: number
  readonly depth: number
}

const PNG = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')

/** Position of the icon that Pillow opens: the largest one, and of several the one with the fewest bits. Source: `IcoFile` (Pillow 13). */
const entryOf = (bytes: Buffer): number => {
  expectBytes(bytes, 0, 6)
  const count = bytes.readUInt16LE(4)
  if (count === 0) throw new Error('it has no icons')
  expectBytes(bytes, 6, count * 16)
  const entries = Array.from({ length: count }, (_, i): Entry => {
    const at = 6 + i * 16
    const [width, height, colours, bits] = [bytes[at] || 256, bytes[at + 1] || 256, bytes[at + 2]!, bytes.readUInt16LE(at + 6)]
    const depth = bits || (colours && Math.ceil(Math.log2(colours))) || 256
    return { start: bytes.readUInt32LE(at + 12), pixels: width * height, depth }
  })
  return entries.sort((a, b) => b.pixels - a.pixels || a.depth - b.depth)[0]!.start
}

/** The icon as a PNG file, or as a bitmap without its mask, which has the lower half of the declared height. */
const iconOf = (bytes: Buffer) => {
  const start = entryOf(bytes)
  if (bytes.subarray(start, start + 8).equals(PNG)) return { png: bytes.subarray(start) }
  const dib = readDib(bytes, start)
  return { dib: { ...dib, height: Math.floor(dib.height / 2) } }
}

/** Windows icons, of which the largest is decoded. */
export const ico: ImageCodec = {
  format: 'ico',
  header: (bytes): ImageHeader | Promise<ImageHeader> => {
    const { png, dib } = iconOf(bytes)
    return dib ?? sharpCodec('png').header(png!)
  },
  decode: (bytes) => {
    const { png, dib } = iconOf(bytes)
    return dib ? { data: decodeDib(bytes, dib), width: dib.width, height: dib.height } : sharpCodec('png').decode(png!)
  }
}
