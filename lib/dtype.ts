/** Bytes per element of each safetensors type. */
export const dtypeBytes = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1
} as const

/** An element type of a stored tensor. */
export type StoredDtype = keyof typeof dtypeBytes

/** Floating-point types that weights can be written in. */
export type FloatDtype = 'F64' | 'F32' | 'F16' | 'BF16'

export const isStoredDtype = (name: unknown): name is StoredDtype => typeof name === 'string' && Object.hasOwn(dtypeBytes, name)

/** A small binary float of `exponent` and `mantissa` bits, decoded by its bits; every value is exact in float32. */
const decode = (bits: number, exponent: number, mantissa: number, hasInfinity: boolean): number => {
  const sign = bits >> (exponent + mantissa) ? -1 : 1
  const e = (bits >> mantissa) & ((1 << exponent) - 1)
  const m = bits & ((1 << mantissa) - 1)
  const [top, full, bias] = [(1 << exponent) - 1, (1 << mantissa) - 1, (1 << (exponent - 1)) - 1]
  if (e === top && hasInfinity) return m ? Number.NaN : sign * Number.POSITIVE_INFINITY
  if (e === top && m === full) return Number.NaN // E4M3 has no infinity, and one NaN a sign
  return sign * (e ? (1 + m / 2 ** mantissa) * 2 ** (e - bias) : (m / 2 ** mantissa) * 2 ** (1 - bias))
}

/** Lookup table of all values of a type of at most 16 bits; built at the first use. */
const table = (bits: number, exponent: number, mantissa: number, hasInfinity: boolean): (() => Float32Array) => {
  let values: Float32Array | undefined
  return () => (values ??= Float32Array.from({ length: 2 ** bits }, (_, i) => decode(i, exponent, mantissa, hasInfinity)))
}
const halves = table(16, 5, 10, true)
const e4m3 = table(8, 4, 3, false)
const e5m2 = table(8, 5, 2, true)

const lookUp = (bits: Uint8Array | Uint16Array, values: Float32Array): Float32Array => {
  const out = new Float32Array(bits.length)
  for (let i = 0; i < bits.length; i++) out[i] = values[bits[i]!]!
  return out
}

const widen = (bits: Uint16Array): Float32Array => {
  const out = new Uint32Array(bits.length)
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16
  return new Float32Array(out.buffer)
}

type View<T> = new (buffer: ArrayBufferLike, byteOffset: number, length: number) => T

/** Bytes as elements, copied only if unaligned. Little-endian, as every platform of Node. */
const view = <T>(bytes: Uint8Array, of: View<T> & { readonly BYTES_PER_ELEMENT: number }): T => {
  const { buffer, byteOffset } = bytes.byteOffset % of.BYTES_PER_ELEMENT ? bytes.slice() : bytes
  return new of(buffer, byteOffset, bytes.byteLength / of.BYTES_PER_ELEMENT)
}

const readers: Readonly<Record<StoredDtype, (bytes: Uint8Array) => Float32Array>> = {
  F32: (bytes) => view(bytes, Float32Array),
  F64: (bytes) => Float32Array.from(view(bytes, Float64Array)),
  F16: (bytes) => lookUp(view(bytes, Uint16Array), halves()),
  BF16: (bytes) => widen(view(bytes, Uint16Array)),
  F8_E4M3: (bytes) => lookUp(bytes, e4m3()),
  F8_E5M2: (bytes) => lookUp(bytes, e5m2()),
  I64: (bytes) => Float32Array.from(view(bytes, BigInt64Array), Number),
  I32: (bytes) => Float32Array.from(view(bytes, Int32Array)),
  I16: (bytes) => Float32Array.from(view(bytes, Int16Array)),
  I8: (bytes) => Float32Array.from(view(bytes, Int8Array)),
  U64: (bytes) => Float32Array.from(view(bytes, BigUint64Array), Number),
  U32: (bytes) => Float32Array.from(view(bytes, Uint32Array)),
  U16: (bytes) => Float32Array.from(view(bytes, Uint16Array)),
  U8: (bytes) => Float32Array.from(bytes),
  BOOL: (bytes) => Float32Array.from(bytes, (b) => (b ? 1 : 0))
}

/**
 * Stored bytes as float32: exact for every float type but F64 (rounded to nearest even), and for integers up to 2^24.
 * F32 shares memory with `bytes` if aligned. Throws a `RangeError` when `bytes` is no whole number of elements.
 */
export const toFloat32 = (bytes: Uint8Array, dtype: StoredDtype): Float32Array => {
  if (bytes.byteLength % dtypeBytes[dtype]) throw new RangeError(`toFloat32: ${bytes.byteLength} bytes are not whole ${dtype}`)
  return readers[dtype](bytes)
}

/** The upper half of float32, rounded to nearest even; NaN stays NaN. */
const toBfloat16 = (values: Float32Array): Uint16Array => {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const out = new Uint16Array(values.length)
  for (let i = 0; i < out.length; i++) {
    const b = bits[i]!
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16
  }
  return out
}

/** Rounds to nearest even; beyond 65504 is infinity, below 2^-24 zero; NaN stays NaN. */
const toHalf = (values: Float32Array): Uint16Array => {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const out = new Uint16Array(values.length)
  for (let i = 0; i < out.length; i++) {
    const b = bits[i]!
    const [sign, magnitude] = [(b >>> 16) & 0x8000, b & 0x7fffffff]
    out[i] = sign | halfMagnitude(magnitude)
  }
  return out
}

const halfMagnitude = (b: number): number => {
  if (b > 0x7f800000) return 0x7e00
  if (b >= 0x477ff000) return 0x7c00 // 65520, half way past the largest
  if (b >= 0x38800000) return (b - 0x38000000 + 0xfff + ((b >>> 13) & 1)) >>> 13 // normal: rebias the exponent, round 13 bits off
  const shift = 126 - (b >>> 23) // subnormal: the mantissa with its leading 1, in units of 2^-24
  if (shift > 24) return 0
  const m = (b & 0x7fffff) | 0x800000
  const [whole, rest, half] = [m >>> shift, m & ((1 << shift) - 1), 1 << (shift - 1)]
  return whole + (rest > half || (rest === half && whole & 1) ? 1 : 0)
}

/** The bytes of a typed array, without a copy. */
export const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength)

/** float32 as stored bytes, rounded to nearest even. F32 shares memory with `values`. */
export const fromFloat32 = (values: Float32Array, dtype: FloatDtype): Uint8Array => {
  if (dtype === 'BF16') return bytesOf(toBfloat16(values))
  if (dtype === 'F16') return bytesOf(toHalf(values))
  return bytesOf(dtype === 'F64' ? Float64Array.from(values) : values)
}
