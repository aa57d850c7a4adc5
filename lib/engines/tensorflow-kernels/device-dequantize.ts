import { type BlockFormat, isHalfFormat, packedRowLength, type QuantizationFormat } from '../../quantization/formats.js'
import { groupSize } from '../../quantization/group.js'
import { codebook } from '../../quantization/int4.js'
import { sizeOf } from '../../shape.js'
import type { DeviceOps, DeviceTensor, DeviceType } from './device-ops.js'

const blockSize = 2 * groupSize

/** A byte in every entry of `x`, for bitwise ops. */
const byte = (ops: DeviceOps, value: number): DeviceTensor => ops.constant(`byte ${value}`, () => [[], Uint8Array.of(value)])

const number = (ops: DeviceOps, value: number, type: DeviceType): DeviceTensor =>
  ops.cast(
    ops.constant(`float32 ${value}`, () => [[], Float32Array.of(value)]),
    type
  )

/** The lower and the upper four bits of bytes `[…, 32]`, `[…, 64]`: the numbers of both groups of a block. */
const nibbles = (ops: DeviceOps, bytes: DeviceTensor): DeviceTensor =>
  ops.concat(
    [ops.elementwise('BitwiseAnd', bytes, byte(ops, 15)), ops.elementwise('RightShift', bytes, byte(ops, 4))],
    bytes.shape.length - 1
  )

/** The upper two bits of the 64 numbers of a block from its last 16 bytes, moved to bits 4 and 5. */
const upperBits = (ops: DeviceOps, bytes: DeviceTensor): DeviceTensor => {
  const quarters = [0, 2, 4, 6].map((bit) => {
    const pair = ops.elementwise('BitwiseAnd', ops.elementwise('RightShift', bytes, byte(ops, bit)), byte(ops, 3))
    return ops.elementwise('LeftShift', pair, byte(ops, 4))
  })
  return ops.concat(quarters, bytes.shape.length - 1)
}

/** Levels `[N, blocks, 64]` in `type`, from the bytes of each block after its scales. */
const levels: Readonly<Record<BlockFormat, (ops: DeviceOps, bytes: DeviceTensor, type: DeviceType) => DeviceTensor>> = {
  int8: (ops, bytes, type) => ops.cast(ops.bitcast(bytes, 'int8'), type),
  int6: (ops, bytes, type) => {
    const low = nibbles(ops, ops.lastAxis(bytes, 0, groupSize))
    const numbers = ops.elementwise('BitwiseOr', low, upperBits(ops, ops.lastAxis(bytes, groupSize, groupSize + 16)))
    return ops.elementwise('Sub', ops.cast(numbers, type), number(ops, 32, type))
  },
  int4: (ops, bytes, type) => {
    const table = ops.constant('codebook', () => [[codebook.length], Float32Array.from(codebook)])
    return ops.gather(ops.cast(table, type), ops.cast(nibbles(ops, bytes), 'int32'))
  }
}

/** TensorFlow's type of each format with 16 bits. */
const halfTypes = { bf16: 'bfloat16', f16: 'float16' } as const

/** 16-bit numbers `[N, columns]` from pairs in an int32 or a float32. */
const pairs = (ops: DeviceOps, packed: DeviceTensor, columns: number, type: DeviceType): DeviceTensor => {
  const [N, width] = packed.shape as [number, number]
  return ops.lastAxis(ops.reshape(ops.bitcast(packed, type), [N, 2 * width]), 0, columns)
}

/**
 * Packed rows `[N, packed]` to rows `[N, columns]` of numbers in `type`, on the device: by a view of the same memory where the format has 16
 * bits, else by shifts of the bytes, a lookup in the codebook, and a product with the scales. lib/quantization/formats.ts has the layout.
 */
export const dequantizeOnDevice = (
  ops: DeviceOps,
  format: QuantizationFormat,
  packed: DeviceTensor,
  columns: number,
  type: DeviceType
): DeviceTensor => {
  if (isHalfFormat(format)) return ops.cast(pairs(ops, packed, columns, halfTypes[format]), type)
  const [N, blocks] = [packed.shape[0]!, Math.ceil(columns / blockSize)]
  const bytesPerBlock = (4 * packedRowLength(format, columns)) / blocks
  const bytes = ops.reshape(ops.bitcast(packed, 'uint8'), [N, blocks, bytesPerBlock])
  const scales = ops.bitcast(ops.reshape(ops.lastAxis(bytes, 0, 4), [N, blocks, 2, 2]), 'bfloat16') // [N, blocks, 2]
  const numbers = levels[format](ops, ops.lastAxis(bytes, 4, bytesPerBlock), type)
  const groups = ops.reshape(numbers, [N, blocks, 2, groupSize])
  const weights = ops.elementwise('Mul', groups, ops.cast(ops.reshape(scales, [N, blocks, 2, 1]), type))
  return ops.lastAxis(ops.reshape(weights, [N, blocks * blockSize]), 0, columns)
}

/** `[…, packed]` as rows `[N, packed]`. */
export const packedRows = (ops: DeviceOps, packed: DeviceTensor): DeviceTensor => {
  const width = packed.shape.at(-1)!
  // int32 has a kernel on the device for few ops, float32 for all: the bits are the same
  return ops.reshape(ops.bitcast(packed, 'float32'), [sizeOf(packed.shape.slice(0, -1)), width])
}
