import { fromFloat32, toFloat32 } from '../dtype.js'
import { valueText } from '../error.js'
import { fused } from '../ops/fused.js'
import { usesTensorflowOps } from '../ops/kernel.js'
import { expectAxes, expectWhole } from '../shape.js'
import { tf } from '../tf.js'
import { type GroupFormat, groupSize, uniformFormat } from './group.js'
import { int4Format } from './int4.js'

/**
 * Quantization formats of a weight `[N, K]` in memory. The name of a format is the key of its packed int32 tensor.
 * - `bf16`, `f16`: bfloat16 and float16, two weights in an int32.
 * - `int8`: 8.5 bits a weight. Blocks of 64: an int32 with the bfloat16 scales of both groups of 32, then one byte for each weight.
 * - `int4`: 4.5 bits a weight. Blocks of 64: an int32 with the scales, then 32 bytes whose low four bits are the first group and
 *   whose high four bits are the second; each number is an index into `codebook`, see int4.ts.
 * - `int6`: 6.5 bits a weight. Blocks of 64: as int4, then 16 bytes with the upper two bits of four weights that are 16 apart each. The
 *   numbers are integers from -31 to 31, stored with 32 added.
 *
 * The last block of a row is padded. `lib/engines/kernels` has the same layout in C++.
 */
export const quantizationFormats = ['bf16', 'f16', 'int8', 'int6', 'int4'] as const
export type QuantizationFormat = (typeof quantizationFormats)[number]

/** Formats of the compiled kernels. */
export const kernelFormats = ['bf16', 'int8', 'int6', 'int4'] as const satisfies readonly QuantizationFormat[]

/** A quantized weight `[N, K]`: a packed int32 tensor `[N, packedRowLength(format, K)]`, in the place of the float32 tensor in a parameter tree. */
export type QuantizedWeight = { readonly [F in QuantizationFormat]: { readonly [K in F]: tf.Tensor2D } }[QuantizationFormat]

/** A weight `[N, K]`, float32 or quantized. */
export type StoredWeight = tf.Tensor2D | QuantizedWeight

/** The format of a weight, and its float32 or packed int32 tensor. */
export const formatOf = (
  weight: StoredWeight
): { readonly format: QuantizationFormat | 'float32'; readonly tensor: tf.Tensor2D } => {
  if (weight instanceof tf.Tensor) return { format: 'float32', tensor: weight }
  const [format, tensor] = Object.entries(weight)[0] as [QuantizationFormat, tf.Tensor2D]
  return { format, tensor }
}

/** Number of weights in a block: two groups. */
const blockSize = 2 * groupSize

const blocks = (columns: number): number => Math.ceil(columns / blockSize)

/** The type in files of each format with 16 bits. */
export const halfDtypes = { bf16: 'BF16', f16: 'F16' } as const
export type HalfFormat = keyof typeof halfDtypes

/** Formats in blocks. */
export type BlockFormat = Exclude<QuantizationFormat, HalfFormat>

/** Whether a format has 16 bits for each weight and no scales. */
export const isHalfFormat = (format: string): format is HalfFormat => Object.hasOwn(halfDtypes, format)

/** Bytes of a block: scales and weights. */
const blockBytes: Readonly<Record<BlockFormat, number>> = {
  int8: 4 + blockSize,
  int6: 4 + (blockSize * 3) / 4,
  int4: 4 + groupSize
}

/** Number of int32 in a packed row of `columns` weights. */
export const packedRowLength = (format: QuantizationFormat, columns: number): number =>
  isHalfFormat(format) ? Math.ceil(columns / 2) : (blocks(columns) * blockBytes[format]) / 4

/** The arithmetic of each format. */
export const groupFormats: Readonly<Record<BlockFormat, GroupFormat>> = {
  int8: uniformFormat(127, 0),
  int6: uniformFormat(31, 32),
  int4: int4Format
}

/** Position of the upper two bits of weight `i` of an int6 block: the byte after the scales, and the first bit. */
const upperBits = (i: number) => [groupSize + (i % 16), 2 * Math.floor(i / 16)] as const

/** Writes the scale and numbers of the group that begins at column `at` into the bytes of its packed row, which are 0 before. */
export const writeGroup = (format: BlockFormat, into: Uint8Array, at: number, scale: number, numbers: Int8Array): void => {
  const [start, second] = [Math.floor(at / blockSize) * blockBytes[format], (at / groupSize) % 2]
  into.set(fromFloat32(Float32Array.of(scale), 'BF16'), start + 2 * second)
  const weights = into.subarray(start + 4)
  numbers.forEach((number, i) => {
    if (format === 'int8') weights[second * groupSize + i] = number
    else weights[i]! |= (number & 15) << (4 * second)
    const [byte, bit] = upperBits(second * groupSize + i)
    if (format === 'int6') weights[byte]! |= (number >> 4) << bit
  })
}

const quantizeRow = (format: BlockFormat, row: Float32Array, into: Uint8Array): void => {
  const { scaleOf, numberOf } = groupFormats[format]
  for (let at = 0; at < row.length; at += groupSize) {
    const group = new Float32Array(groupSize)
    group.set(row.subarray(at, at + groupSize))
    const scale = scaleOf(group)
    writeGroup(
      format,
      into,
      at,
      scale,
      Int8Array.from(group, (w) => numberOf(w, scale))
    )
  }
}

/** The level of weight `i` of a block, from the bytes after the scales. */
const levelIn = (format: BlockFormat, weights: Uint8Array, i: number): number => {
  if (format === 'int8') return (weights[i]! << 24) >> 24
  const low = (weights[i % groupSize]! >> (i < groupSize ? 0 : 4)) & 15
  if (format === 'int4') return groupFormats.int4.levelOf(low)
  const [byte, bit] = upperBits(i)
  return groupFormats.int6.levelOf(low | (((weights[byte]! >> bit) & 3) << 4))
}

/**
 * The scales of a packed weight in blocks `[…, packed]`, two bfloat16 in an int32: `[…, blocks]`, a 9th to a 17th of the data. The caller
 * owns the result.
 */
export const packedScales = (format: BlockFormat, packed: tf.Tensor): tf.Tensor => {
  const zeros = packed.shape.map(() => 0)
  const strides = packed.shape.map((_, axis) => (axis === packed.rank - 1 ? blockBytes[format] / 4 : 1))
  return packed.stridedSlice(zeros, [...packed.shape], strides)
}

/** Quantizes rows of `columns` weights to packed rows. */
export const quantizeRows = (format: QuantizationFormat, weights: Float32Array, columns: number): Int32Array => {
  const [rows, length] = [weights.length / columns, packedRowLength(format, columns)]
  const bytes = new Uint8Array(rows * length * 4)
  for (let n = 0; n < rows; n++) {
    const [row, into] = [weights.subarray(n * columns, (n + 1) * columns), bytes.subarray(n * length * 4, (n + 1) * length * 4)]
    if (isHalfFormat(format)) into.set(fromFloat32(row, halfDtypes[format]))
    else quantizeRow(format, row, into)
  }
  return new Int32Array(bytes.buffer)
}

/** Dequantizes packed rows to rows of `columns` weights. */
export const dequantizeRows = (format: QuantizationFormat, packed: Int32Array, columns: number): Float32Array => {
  const width = packedRowLength(format, columns) * 4
  const bytes = new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength)
  const rows = bytes.length / width
  const weights = new Float32Array(rows * columns)
  for (let n = 0; n < rows; n++) {
    const row = bytes.subarray(n * width, (n + 1) * width)
    if (isHalfFormat(format)) {
      weights.set(toFloat32(row.subarray(0, columns * 2), halfDtypes[format]), n * columns)
      continue
    }
    for (let k = 0; k < columns; k += groupSize) {
      const [start, second] = [Math.floor(k / blockSize) * blockBytes[format], (k / groupSize) % 2]
      const scale = toFloat32(row.slice(start + 2 * second, start + 2 * second + 2), 'BF16')[0]!
      const levels = row.subarray(start + 4)
      for (let i = 0; i < Math.min(groupSize, columns - k); i++)
        weights[n * columns + k + i] = scale * levelIn(format, levels, second * groupSize + i)
    }
  }
  return weights
}

/** Quantizes a weight `[N, K]`. */
export const quantize = (format: QuantizationFormat, weight: tf.Tensor2D): QuantizedWeight => {
  if (!quantizationFormats.includes(format))
    throw new RangeError(`quantize: there is no format ${valueText(format)}; use one of ${quantizationFormats.join(', ')}`)
  expectAxes('quantize', { weight: [weight, 'N K', 'float32'] })
  const [N, K] = weight.shape
  const onHost = ({ x }: { readonly x: tf.Tensor2D }): tf.Tensor2D =>
    tf.tensor2d(quantizeRows(format, x.dataSync() as Float32Array, K), [N, packedRowLength(format, K)], 'int32')
  const packed = format === 'f16' ? onHost({ x: weight }) : fused('QuantizeWeight', { x: weight }, { format }, onHost)
  return { [format]: packed } as unknown as QuantizedWeight
}

/**
 * Whether the present engine multiplies with weights of a format directly: float16 with TensorFlow's ops alone. Other engines would
 * dequantize at every product; there, loading dequantizes once: the results are equal, and the memory is that of float32.
 */
export const keepsQuantized = (format?: QuantizationFormat): boolean =>
  format === 'f16' ? usesTensorflowOps() : tf.getKernel('QuantizedLinear', tf.getBackend()) !== undefined

/** Dequantizes a weight `[N, columns]` to float32; a float32 weight is returned as it is. No gradient flows through quantized weights. */
export const dequantize = (weight: StoredWeight, columns: number): tf.Tensor2D => {
  const { format, tensor } = formatOf(weight)
  expectWhole('dequantize', 'columns', columns, 0, 2 ** 31 - 1)
  expectAxes('dequantize', { weight: format === 'float32' ? [tensor, `N ${columns}`, 'float32'] : [tensor, `N ${packedRowLength(format, columns)}`, 'int32'] }) // biome-ignore format: one line
  return format === 'float32' ? tensor : dequantizePacked(format, tensor, columns)
}

/** Dequantizes packed rows `[…, packed]` to `[…, columns]`. */
export const dequantizePacked = <R extends tf.Rank>(
  format: QuantizationFormat,
  packed: tf.Tensor<R>,
  columns: number
): tf.Tensor<R> => {
  const onHost = ({ x }: { readonly x: tf.Tensor<R> }): tf.Tensor<R> =>
    tf.tensor(dequantizeRows(format, x.dataSync() as Int32Array, columns), [...x.shape.slice(0, -1), columns] as tf.ShapeMap[R])
  const isOnHost = format === 'f16' && !usesTensorflowOps()
  return isOnHost ? onHost({ x: packed }) : fused('DequantizeWeight', { x: packed }, { format, columns }, onHost)
}
