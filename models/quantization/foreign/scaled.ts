import { toFloat32 } from '../../../lib/dtype.js'
import type { ForeignFormat, StoredTensor } from './foreign-format.js'
import { floatTypeOf } from './foreign-format.js'

const f32 = Math.fround

/** Numbers of a row of a stored matrix. */
const rowOf = ({ bytes, dtype }: StoredTensor, row: number, columns: number): Float32Array =>
  toFloat32(bytes.subarray(row * columns, (row + 1) * columns), dtype) // types of one byte

/**
 * Weights of one byte with scales: `weight` `[out, in]` in float8 or int8, and `weight_scale` (one number, or one a row) or
 * `weight_scale_inv` (one for each block of the matrix), by which a weight is multiplied. `weight_zero_point` is subtracted first.
 * Formats: FP8 of DeepSeek and Qwen; `float-quantized` and `int-quantized` of compressed-tensors.
 */
export const scaledBytes: ForeignFormat = {
  main: 'weight',
  owns: (part) => /^weight(_scale(_inv)?|_zero_point)?$|^(input|output)_(scale|zero_point)$|^activation_scale(_inv)?$/.test(part),
  describe: ({ weight, weight_scale, weight_scale_inv }, { weight_block_size, quant_method }) => {
    const scale = weight_scale ?? weight_scale_inv
    if (!weight || !scale || !['F8_E4M3', 'F8_E5M2', 'I8'].includes(weight.dtype)) return undefined
    const [out, features] = weight.shape as readonly [number, number]
    const isFloat32 = weight_block_size !== undefined || quant_method === 'fp8'
    return { shape: [out, features], dtype: isFloat32 ? 'F32' : floatTypeOf(scale) }
  },
  rows: ({ weight, weight_scale, weight_scale_inv, weight_zero_point }, config, [out, features]) => {
    const stored = (weight_scale ?? weight_scale_inv)!
    const scales = toFloat32(stored.bytes, stored.dtype)
    const zeros = weight_zero_point && toFloat32(weight_zero_point.bytes, weight_zero_point.dtype)
    const isBlock = scales.length > 1 && scales.length !== out
    const columns = isBlock ? stored.shape[1]! : 1
    const sides = config.weight_block_size as readonly [number, number] | undefined
    const [height, width] = isBlock ? (sides ?? [blockSide(out, stored.shape[0]!), blockSide(features, columns)]) : [1, features]
    return (from, to) => {
      const weights = new Float32Array((to - from) * features)
      for (let row = from; row < to; row++) {
        const values = rowOf(weight!, row, features)
        const zero = zeros ? zeros[zeros.length === 1 ? 0 : row]! : 0
        const first = scales.length === 1 ? 0 : Math.floor(row / height) * columns
        for (let i = 0; i < features; i++)
          weights[(row - from) * features + i] = f32(
            (values[i]! - zero) * scales[isBlock ? first + Math.floor(i / width) : first]!
          )
      }
      return weights
    }
  }
}

/** Side of the blocks that cover `length` with `count` blocks: a power of two, as 128 in released models. */
const blockSide = (length: number, count: number): number => 2 ** Math.ceil(Math.log2(length / count))

/** bitsandbytes int8: `weight` `[out, in]` in int8 and `SCB`, the largest absolute value of each row. Source: `int8_vectorwise_dequant`. */
export const bitsAndBytes8: ForeignFormat = {
  main: 'SCB',
  owns: (part) => part === 'weight' || part === 'SCB' || part === 'weight_format',
  describe: ({ weight, SCB }) =>
    weight?.dtype === 'I8' && SCB ? { shape: weight.shape as [number, number], dtype: 'F32' } : undefined,
  rows: ({ weight, SCB }, _, [, features]) => {
    const largest = toFloat32(SCB!.bytes, SCB!.dtype)
    const inverse = f32(7.874015718698502e-3) // 1 / 127
    return (from, to) => {
      const weights = new Float32Array((to - from) * features)
      for (let row = from; row < to; row++)
        weights.set(
          rowOf(weight!, row, features).map((q) => f32(f32(q * largest[row]!) * inverse)),
          (row - from) * features
        )
      return weights
    }
  }
}
