import { toFloat32 } from '../../lib/dtype.js'

/** Types of tensors that are read, by their numbers in a file. Source: `ggml_type` of ggml. */
export const ggufTypes = {
  0: 'F32',
  1: 'F16',
  2: 'Q4_0',
  3: 'Q4_1',
  6: 'Q5_0',
  7: 'Q5_1',
  8: 'Q8_0',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  30: 'BF16',
  39: 'MXFP4'
} as const satisfies Readonly<Record<number, string>> as Readonly<Record<number, GgufType>>

export type GgufType = 'F32' | 'F16' | 'BF16' | 'Q4_0' | 'Q4_1' | 'Q5_0' | 'Q5_1' | 'Q8_0' | 'Q4_K' | 'Q5_K' | 'Q6_K' | 'MXFP4'

/** Writes the weights of one block, which begins at `at`, to `out` from `to`. */
type Block = (b: DataView, at: number, out: Float32Array, to: number) => void

interface BlockFormat {
  /** Weights of a block. */
  readonly weights: number
  /** Bytes of a block. */
  readonly bytes: number
}

const f32 = Math.fround // every step is rounded, as in gguf's numpy

/** A float16 at a position. */
const half = (b: DataView, at: number): number => {
  const bits = b.getUint16(at, true)
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023]
  const sign = bits & 0x8000 ? -1 : 1
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

/** 32 weights of 4 bits, `d · (q − 8)`, or with `hasMin` `d · q + m`. */
const q4 =
  (hasMin: boolean): Block =>
  (b, at, out, to) => {
    const [d, m, qs] = [half(b, at), hasMin ? half(b, at + 2) : 0, at + (hasMin ? 4 : 2)]
    const weight = (q: number) => (hasMin ? f32(f32(d * q) + m) : f32(d * (q - 8)))
    for (let j = 0; j < 16; j++) {
      const byte = b.getUint8(qs + j)
      out[to + j] = weight(byte & 15)
      out[to + j + 16] = weight(byte >> 4)
    }
  }

/** 32 weights of 5 bits, the fifth in `qh`: `d · (q − 16)`, or with `hasMin` `d · q + m`. */
const q5 =
  (hasMin: boolean): Block =>
  (b, at, out, to) => {
    const [d, m, high] = [half(b, at), hasMin ? half(b, at + 2) : 0, at + (hasMin ? 4 : 2)]
    const qh = b.getUint32(high, true)
    const weight = (q: number) => (hasMin ? f32(f32(d * q) + m) : f32(d * (q - 16)))
    for (let j = 0; j < 16; j++) {
      const byte = b.getUint8(high + 4 + j)
      out[to + j] = weight((byte & 15) | (((qh >>> j) & 1) << 4))
      out[to + j + 16] = weight((byte >> 4) | (((qh >>> (j + 16)) & 1) << 4))
    }
  }

const q8: Block = (b, at, out, to) => {
  const d = half(b, at)
  for (let j = 0; j < 32; j++) out[to + j] = f32(d * b.getInt8(at + 2 + j))
}

/** Scale and minimum, 6 bits each, of sub-block `j` of 8. Source: `get_scale_min_k4` of ggml. */
const scaleAndMin = (b: DataView, at: number, j: number): readonly [scale: number, min: number] => {
  const byte = (i: number) => b.getUint8(at + i)
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63]
  return [(byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4), (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4)]
}

/** 256 weights of 4 or 5 bits in 8 sub-blocks: `d · scale · q − dmin · min`. */
const q45k =
  (hasFifth: boolean): Block =>
  (b, at, out, to) => {
    const [d, dmin, high, qs] = [half(b, at), half(b, at + 2), at + 16, at + (hasFifth ? 48 : 16)]
    for (let j = 0; j < 8; j++) {
      const [scale, min] = scaleAndMin(b, at + 4, j)
      const [factor, offset, bytes, shift] = [f32(d * scale), f32(dmin * min), qs + 32 * (j >> 1), 4 * (j & 1)]
      for (let l = 0; l < 32; l++) {
        const fifth = hasFifth ? ((b.getUint8(high + l) >> j) & 1) << 4 : 0
        const q = ((b.getUint8(bytes + l) >> shift) & 15) | fifth
        out[to + 32 * j + l] = f32(f32(factor * q) - offset)
      }
    }
  }

/** 256 weights of 6 bits in 16 sub-blocks: `d · scale · (q − 32)`. */
const q6k: Block = (b, at, out, to) => {
  const d = half(b, at + 208)
  for (let i = 0; i < 256; i++) {
    const [n, k, l] = [i >> 7, (i >> 5) & 3, i & 31] // half, quarter of the half, place
    const low = (b.getUint8(at + 64 * n + 32 * (k & 1) + l) >> (4 * (k >> 1))) & 15
    const high = (b.getUint8(at + 128 + 32 * n + l) >> (2 * k)) & 3
    const factor = f32(d * b.getInt8(at + 192 + (i >> 4)))
    out[to + i] = f32(factor * ((low | (high << 4)) - 32))
  }
}

/** Values of FP4 (E2M1), doubled; the scale is halved in return. */
const doubledFp4 = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]

/** 32 weights of FP4 with a power of two as scale, in one byte. */
const mxfp4: Block = (b, at, out, to) => {
  const d = 2 ** (b.getUint8(at) - 128)
  for (let j = 0; j < 16; j++) {
    const byte = b.getUint8(at + 1 + j)
    out[to + j] = f32(d * doubledFp4[byte & 15]!)
    out[to + j + 16] = f32(d * doubledFp4[byte >> 4]!)
  }
}

/** Sizes of the blocks of each type. */
export const blockFormats: Readonly<Record<GgufType, BlockFormat>> = {
  F32: { weights: 1, bytes: 4 },
  F16: { weights: 1, bytes: 2 },
  BF16: { weights: 1, bytes: 2 },
  Q4_0: { weights: 32, bytes: 18 },
  Q4_1: { weights: 32, bytes: 20 },
  Q5_0: { weights: 32, bytes: 22 },
  Q5_1: { weights: 32, bytes: 24 },
  Q8_0: { weights: 32, bytes: 34 },
  Q4_K: { weights: 256, bytes: 144 },
  Q5_K: { weights: 256, bytes: 176 },
  Q6_K: { weights: 256, bytes: 210 },
  MXFP4: { weights: 32, bytes: 17 }
}

const blocks = {
  Q4_0: q4(false),
  Q4_1: q4(true),
  Q5_0: q5(false),
  Q5_1: q5(true),
  Q8_0: q8,
  Q4_K: q45k(false),
  Q5_K: q45k(true),
  Q6_K: q6k,
  MXFP4: mxfp4
} as const satisfies Partial<Record<GgufType, Block>>

/** Whether a type has blocks with scales, in contrast to plain numbers. */
export const isBlockType = (type: GgufType): type is keyof typeof blocks => Object.hasOwn(blocks, type)

/** The weights of whole blocks, in float32. Source: `gguf.quants.dequantize` (gguf 0.19), bit for bit. */
export const dequantizeBlocks = (bytes: Uint8Array, type: GgufType): Float32Array => {
  if (!isBlockType(type)) return toFloat32(bytes, type)
  const [{ weights, bytes: size }, block] = [blockFormats[type], blocks[type]]
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const out = new Float32Array((bytes.byteLength / size) * weights)
  for (let i = 0; i * size < bytes.byteLength; i++) block(view, i * size, out, i * weights)
  return out
}
