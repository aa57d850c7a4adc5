import { expectBytes, expectSize, flipRows, fromGrey, type ImageCodec, type ImageHeader, unpackBits } from './codec.js'

interface Header extends ImageHeader {
  /** P1 to P6, or Pf. */
  readonly magic: string
  /** Largest value of a sample; for Pf the scale, whose sign tells the byte order. */
  readonly max: number
  readonly pixels: number
}

const SPACE = ' \t\n\v\f\r'

/** The next word of a header, behind white space and comments, and the position behind the one white space that ends the word. */
const nextWord = (bytes: Buffer, start: number): readonly [word: string, end: number] => {
  let [at, word] = [start, '']
  while (at < bytes.length && word.length <= 40) {
    const character = String.fromCharCode(bytes[at++]!)
    if (character === '#') while (at < bytes.length && !'\r\n'.includes(String.fromCharCode(bytes[at++]!)));
    else if (!SPACE.includes(character)) word += character
    else if (word !== '') break
  }
  return [word, at]
}

/** Source: `PpmImageFile._open` (Pillow 13). */
const headerOf = (bytes: Buffer): Header => {
  const magic = bytes.toString('latin1', 0, 2)
  const words: number[] = []
  let at = 2
  while (words.length < (magic === 'P1' || magic === 'P4' ? 2 : 3)) {
    const [word, end] = nextWord(bytes, at)
    if (word === '' || !Number.isFinite(Number(word)))
      throw new Error(`its header has ${JSON.stringify(word)} instead of a number`)
    words.push(Number(word))
    at = end
  }
  const [width, height, max = 1] = words as [number, number, number]
  if (![width, height].every(Number.isInteger)) throw new Error(`its header declares ${width} x ${height} pixels`)
  const isFloat = magic === 'Pf'
  if (isFloat ? max === 0 : !(Number.isInteger(max) && max > 0 && max < 65536)) throw new Error(`its largest value is ${max}`)
  return expectSize({ width, height, magic, max, pixels: at })
}

const roundHalfEven = (x: number): number => {
  const floor = Math.floor(x)
  const rest = x - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}

/** Samples as 8-bit values. Pillow clips grey above 8 bits to 255 after scaling to 16 bits, and scales colours to 8 bits. */
const toBytes = (samples: ArrayLike<number>, max: number, isGrey: boolean): Uint8Array => {
  if (max === 255) return Uint8Array.from(samples)
  const full = isGrey && max > 255 ? 65535 : 255
  return Uint8Array.from(samples, (value) => Math.min(255, roundHalfEven((value / max) * full)))
}

/** Numbers of a plain text format; in P1 white space between the digits is optional. */
const plainSamples = (bytes: Buffer, { magic, max, pixels }: Header, count: number): readonly number[] => {
  const text = bytes.toString('latin1', pixels).replace(/#[^\r\n]*([\r\n]|$)/g, '')
  const words = magic === 'P1' ? (text.match(/\S/g) ?? []) : (text.match(/\S+/g) ?? [])
  if (words.length < count) throw new Error(`it has ${words.length} of ${count} samples`)
  return words.slice(0, count).map((word) => {
    const value = Number(word)
    if (!Number.isInteger(value) || value < 0 || value > max)
      throw new Error(`a sample is ${JSON.stringify(word.slice(0, 20))}, expected 0 to ${max}`)
    return value
  })
}

const binarySamples = (bytes: Buffer, { max, pixels }: Header, count: number): ArrayLike<number> => {
  const size = max > 255 ? 2 : 1
  expectBytes(bytes, pixels, count * size)
  if (size === 1) return bytes.subarray(pixels, pixels + count)
  return Uint16Array.from({ length: count }, (_, i) => bytes.readUInt16BE(pixels + i * 2))
}

/** 32-bit floating-point grey, bottom row first, truncated to 8 bits. */
const fromFloats = (bytes: Buffer, { width, height, max, pixels }: Header): Uint8Array => {
  const count = width * height
  expectBytes(bytes, pixels, count * 4)
  const at = (i: number): number => (max < 0 ? bytes.readFloatLE(pixels + i * 4) : bytes.readFloatBE(pixels + i * 4))
  return flipRows(fromGrey(Uint8Array.from({ length: count }, (_, i) => Math.min(255, Math.max(0, Math.trunc(at(i)))))), width)
}

const pixelsOf = (bytes: Buffer, header: Header): Uint8Array => {
  const { magic, width, height, max, pixels } = header
  if (magic === 'Pf') return fromFloats(bytes, header)
  const isWhite = (bit: number): number => (bit === 1 ? 0 : 255)
  if (magic === 'P1') return fromGrey(Uint8Array.from(plainSamples(bytes, header, width * height), isWhite))
  if (magic === 'P4') {
    const stride = Math.ceil(width / 8)
    expectBytes(bytes, pixels, stride * height)
    return fromGrey(unpackBits(bytes.subarray(pixels), 1, width, height, stride).map(isWhite))
  }
  const isGrey = magic === 'P2' || magic === 'P5'
  const count = width * height * (isGrey ? 1 : 3)
  const samples = magic === 'P2' || magic === 'P3' ? plainSamples(bytes, header, count) : binarySamples(bytes, header, count)
  const values = toBytes(samples, max, isGrey)
  return isGrey ? fromGrey(values) : values
}

/** Whether bytes begin with the signature of PBM, PGM, PPM or PFM. */
export const isNetpbm = (bytes: Buffer): boolean => /^P[1-6f][ \t\n\v\f\r#]/.test(bytes.toString('latin1', 0, 3))

/** PBM, PGM, PPM and grey PFM images, as text and binary. */
export const netpbm: ImageCodec = {
  format: 'ppm',
  header: headerOf,
  decode: (bytes) => {
    const header = headerOf(bytes)
    return { data: pixelsOf(bytes, header), width: header.width, height: header.height }
  }
}
