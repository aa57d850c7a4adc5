import { loadAv } from '../../media/load-av.js'
import { expectSize, type ImageCodec, type ImageHeader } from './codec.js'
import { fromChannels } from './sharp-image.js'

interface Header extends ImageHeader {
  readonly components: number
  readonly bits: number
}

/** Markers "start of codestream" and "image and tile size". Source: ISO/IEC 15444-1, A.4 and A.5. */
const CODESTREAM = Buffer.from([0xff, 0x4f, 0xff, 0x51])

/** Whether bytes begin with the signature of a JP2 file or of a bare codestream. */
export const isJpeg2000 = (bytes: Buffer): boolean =>
  bytes.subarray(0, 4).equals(CODESTREAM) || bytes.toString('latin1', 4, 12) === 'jP  \r\n\x87\n'

const headerOf = (bytes: Buffer): Header => {
  const at = bytes.indexOf(CODESTREAM)
  if (at < 0 || bytes.length < at + 43) throw new Error('a JPEG 2000 file without a codestream')
  const [width, height, left, top] = [8, 12, 16, 20].map((offset) => bytes.readUInt32BE(at + offset)) as [
    number,
    number,
    number,
    number
  ]
  const [components, bits] = [bytes.readUInt16BE(at + 40), (bytes[at + 42]! & 127) + 1]
  if (components > 4) throw new Error(`a JPEG 2000 image of ${components} components; convert it to PNG`)
  return expectSize({ width: width - left, height: height - top, components, bits })
}

interface J2KDecoder {
  readonly getEncodedBuffer: (length: number) => Uint8Array
  readonly decode: () => void
  readonly getDecodedBuffer: () => Uint8Array
  readonly getFrameInfo: () => { readonly width: number; readonly height: number; readonly componentCount: number }
  readonly delete: () => void
}

export interface OpenJpeg {
  readonly J2KDecoder: new () => J2KDecoder
}

let loading: Promise<OpenJpeg> | undefined
const load = async (): Promise<OpenJpeg> => {
  const { default: start } = await import('@cornerstonejs/codec-openjpeg/decodewasmjs')
  return start({ print: () => undefined, printErr: () => undefined })
}

/** 8-bit values of `bits`-bit samples. Like Pillow, grey above 8 bits is scaled to 16 bits and clipped to 255, colours lose low bits. */
const toBytes = (samples: Uint8Array, { components, bits }: Header): Uint8Array => {
  if (bits <= 8) return samples.map((value) => value << (8 - bits))
  const values = new Uint16Array(samples.buffer, samples.byteOffset, samples.length / 2)
  return Uint8Array.from(
    values,
    components === 1 ? (value) => Math.min(255, value << (16 - bits)) : (value) => value >> (bits - 8)
  )
}

const checkSize = (header: Header, width: number, height: number): void => {
  if (width !== header.width || height !== header.height)
    throw new Error(`it has ${width} x ${height} pixels instead of ${header.width} x ${header.height}`)
}

const decodeOpaque = async (bytes: Buffer, header: Header): Promise<Uint8Array> => {
  loading ??= load()
  const decoder = new (await loading).J2KDecoder()
  try {
    decoder.getEncodedBuffer(bytes.length).set(bytes)
    try {
      decoder.decode()
    } catch {
      throw new Error('OpenJPEG cannot decode it') // the exception is an address in the memory of WebAssembly
    }
    const { width, height, componentCount } = decoder.getFrameInfo()
    checkSize(header, width, height)
    // copied out of WebAssembly; OpenJPEG replaces palette indices by colours, so the number of components may differ
    const values = toBytes(Uint8Array.from(decoder.getDecodedBuffer()), { ...header, components: componentCount })
    return fromChannels(values, width * height, componentCount)
  } finally {
    decoder.delete()
  }
}

/** Decodes grey or colours with alpha by FFmpeg, since the build of OpenJPEG has no images of two and four components. */
const decodeAlpha = async (bytes: Buffer, header: Header): Promise<Uint8Array> => {
  const av = await loadAv()
  const codec = av?.Codec.findDecoder(av.AV_CODEC_ID_JPEG2000)
  if (!av || !codec) throw new Error('JPEG 2000 with alpha needs the package node-av: npm install --ignore-scripts node-av@6')
  const [context, packet, frame] = [new av.CodecContext(), new av.Packet(), new av.Frame()]
  try {
    context.allocContext3(codec)
    packet.alloc()
    frame.alloc()
    packet.data = bytes
    const isDecoded =
      (await context.open2(codec, null)) >= 0 &&
      (await context.sendPacket(packet)) >= 0 &&
      (await context.sendPacket(null)) >= 0 &&
      (await context.receiveFrame(frame)) >= 0
    if (!isDecoded) throw new Error('FFmpeg cannot decode it')
    checkSize(header, frame.width, frame.height)
    if (frame.format !== av.AV_PIX_FMT_RGBA && frame.format !== av.AV_PIX_FMT_YA8)
      throw new Error('its colours are not grey or RGB with alpha in 8 bits; convert it to PNG')
    return fromChannels(frame.toBuffer(), header.width * header.height, header.components)
  } finally {
    frame.free()
    packet.free()
    context.freeContext()
  }
}

/** JPEG 2000 images: by OpenJPEG, Pillow's decoder, in WebAssembly, and with alpha by FFmpeg. */
export const jpeg2000: ImageCodec = {
  format: 'jp2',
  header: headerOf,
  decode: async (bytes) => {
    const header = headerOf(bytes)
    const data = await (header.components % 2 === 1 ? decodeOpaque : decodeAlpha)(bytes, header)
    return { data, width: header.width, height: header.height }
  }
}
