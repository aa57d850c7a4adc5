import { expectBytes, expectData, expectSize, type ImageCodec, type ImageHeader, paddedPalette } from './codec.js'
import { openSharp } from './sharp-image.js'

/** The first frame of a GIF on its canvas. */
interface Gif extends ImageHeader {
  readonly left: number
  readonly top: number
  readonly frameWidth: number
  readonly frameHeight: number
  /** Colour of the canvas outside the frame. */
  readonly canvas: Uint8Array
  /** A GIF of the first frame alone, without transparency, whose canvas is the frame. */
  readonly frame: Buffer
}

/** Colours of a GIF without a palette. */
const GREY = Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3))

const paletteLength = (flags: number): number => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0)

/** Position behind the sub-blocks that begin at `start`. */
const endOfBlocks = (bytes: Buffer, start: number): number => {
  let at = start
  while (at < bytes.length && bytes[at] !== 0) at += bytes[at]! + 1
  return at + 1
}

/**
 * Reads the first frame's rectangle and palette. Pillow keeps the palette colour of transparent pixels, where libvips makes them black,
 * and fills the canvas outside the frame with the transparent colour, or with colour 0.
 *
 * Source: `GifImageFile._seek`, `load_prepare` (Pillow 13).
 */
const readGif = (bytes: Buffer): Gif => {
  expectBytes(bytes, 0, 13)
  const globalLength = paletteLength(bytes[10]!)
  expectBytes(bytes, 13, globalLength)
  let at = 13 + globalLength
  let transparent = 0
  while (at < bytes.length && bytes[at] !== 0x2c) {
    if (bytes[at] === 0x3b) throw new Error('it has no frame')
    if (bytes[at] !== 0x21) at++
    else {
      const isGraphicControl = bytes[at + 1] === 0xf9 && bytes[at + 2]! >= 4
      if (isGraphicControl && (bytes[at + 3]! & 1) === 1) transparent = bytes[at + 6]!
      at = endOfBlocks(bytes, at + 2)
    }
  }
  expectBytes(bytes, at, 11)
  const [left, top, frameWidth, frameHeight] = [1, 3, 5, 7].map((offset) => bytes.readUInt16LE(at + offset)) as [
    number,
    number,
    number,
    number
  ]
  const localLength = paletteLength(bytes[at + 9]!)
  const colours = localLength > 0 ? bytes.subarray(at + 10, at + 10 + localLength) : bytes.subarray(13, 13 + globalLength)
  const palette = colours.length > 0 ? paddedPalette(colours) : GREY
  const end = endOfBlocks(bytes, at + 11 + localLength)
  const head = Buffer.from(bytes.subarray(0, 13))
  head.writeUInt16LE(frameWidth, 6)
  head.writeUInt16LE(frameHeight, 8)
  head[10] = head[10]! & 0x7f // no global palette
  const descriptor = Buffer.from(bytes.subarray(at, at + 10))
  descriptor.fill(0, 1, 5)
  descriptor[9] = (descriptor[9]! & 0x40) | 0x87 // a palette of 256 colours
  const isWhole = end <= bytes.length
  return expectSize({
    width: Math.max(bytes.readUInt16LE(6), left + frameWidth),
    height: Math.max(bytes.readUInt16LE(8), top + frameHeight),
    ...{ left, top, frameWidth, frameHeight },
    canvas: palette.subarray(transparent * 3, transparent * 3 + 3),
    frame: Buffer.concat([
      head,
      descriptor,
      palette,
      bytes.subarray(at + 10 + localLength, end),
      Buffer.from(isWhole ? [0x3b] : [])
    ])
  })
}

/** GIF images, of which the first frame is decoded. */
export const gif: ImageCodec = {
  format: 'gif',
  header: async (bytes) => ({ ...readGif(bytes), frames: (await openSharp(bytes).metadata()).pages ?? 1 }),
  decode: async (bytes) => {
    const { width, height, left, top, frameWidth, frameHeight, canvas, frame } = readGif(bytes)
    expectData(frame.length, frameWidth * frameHeight, 4096) // a code of nine bits or more stands for 4096 pixels at most
    const { data: rows } = await openSharp(frame).toColourspace('srgb').removeAlpha().raw().toBuffer({ resolveWithObject: true })
    if (rows.length !== frameWidth * frameHeight * 3) throw new Error(`its frame is not ${frameWidth} x ${frameHeight} pixels`)
    if (frameWidth === width && frameHeight === height)
      return { data: new Uint8Array(rows.buffer, rows.byteOffset, rows.length), width, height }
    const data = new Uint8Array(width * height * 3)
    Buffer.from(data.buffer).fill(canvas)
    for (let y = 0; y < frameHeight; y++)
      data.set(rows.subarray(y * frameWidth * 3, (y + 1) * frameWidth * 3), ((top + y) * width + left) * 3)
    return { data, width, height }
  }
}
