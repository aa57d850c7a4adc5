import { toFloat32 } from '../../../lib/dtype.js'
import { type ForeignFormat, floatTypeOf, words } from './foreign-format.js'

const f32 = Math.fround
const owned = (names: readonly string[]) => (part: string) => names.includes(part)

/** Columns of the eight 4-bit values of a word of AWQ. Source: `AWQ_ORDER` (AutoAWQ). */
const awqOrder = [0, 2, 4, 6, 1, 3, 5, 7]
const awqPlace = Array.from({ length: 8 }, (_, column) => awqOrder.indexOf(column))

/**
 * AWQ (`gemm`): `qweight` `[in, out / 8]` and `qzeros` `[groups, out / 8]`, eight 4-bit values a word in AWQ's order, `scales`
 * `[groups, out]`. A weight is `(q − zero) · scale`.
 */
export const awq: ForeignFormat = {
  main: 'qweight',
  owns: owned(['qweight', 'qzeros', 'scales']),
  describe: ({ qweight, qzeros, scales }) =>
    qweight && qzeros && scales && { shape: [qweight.shape[1]! * 8, qweight.shape[0]!], dtype: floatTypeOf(scales) },
  rows: ({ qweight, qzeros, scales }, _, [out, features]) => {
    const [q, zeros, scale] = [words(qweight!), words(qzeros!), toFloat32(scales!.bytes, scales!.dtype)]
    const size = features / scales!.shape[0]! // inputs of a group
    return (from, to) => {
      const weights = new Float32Array((to - from) * features)
      for (let row = from; row < to; row++) {
        const [column, shift] = [row >> 3, 4 * awqPlace[row & 7]!]
        for (let i = 0; i < features; i++) {
          const group = Math.floor(i / size)
          const value = ((q[(i * out) / 8 + column]! >>> shift) & 15) - ((zeros[(group * out) / 8 + column]! >>> shift) & 15)
          weights[(row - from) * features + i] = f32(value * scale[group * out + row]!)
        }
      }
      return weights
    }
  }
}

/**
 * GPTQ: `qweight` `[in · bits / 32, out]`, values packed along the inputs, `qzeros` `[groups, out · bits / 32]`, `scales`
 * `[groups, out]`, and `g_idx` `[in]`, the group of each input. A weight is `(q − zero) · scale`; the first version of the format
 * stores zero − 1. Source: `TorchQuantLinear.dequantize_weight` (GPTQModel).
 */
export const gptq: ForeignFormat = {
  main: 'qweight',
  owns: owned(['qweight', 'qzeros', 'scales', 'g_idx']),
  describe: ({ qweight, qzeros, scales }, { bits = 4 }) =>
    qweight &&
    qzeros &&
    scales && { shape: [qweight.shape[1]!, (qweight.shape[0]! * 32) / Number(bits)], dtype: floatTypeOf(scales) },
  rows: ({ qweight, qzeros, scales, g_idx }, config, [out, features]) => {
    const bits = Number(config.bits ?? 4)
    const [perWord, mask] = [32 / bits, 2 ** bits - 1]
    const [q, zeros, scale] = [words(qweight!), words(qzeros!), toFloat32(scales!.bytes, scales!.dtype)]
    const size = features / scales!.shape[0]!
    const groups = g_idx ? words(g_idx) : Uint32Array.from({ length: features }, (_, i) => Math.floor(i / size))
    const added = config.checkpoint_format === 'gptq_v2' ? 0 : 1
    return (from, to) => {
      const weights = new Float32Array((to - from) * features)
      for (let row = from; row < to; row++) {
        const zeroAt = (group: number) =>
          (((zeros[group * (out / perWord) + Math.floor(row / perWord)]! >>> (bits * (row % perWord))) & mask) + added) & mask
        for (let i = 0; i < features; i++) {
          const value = (q[Math.floor(i / perWord) * out + row]! >>> (bits * (i % perWord))) & mask
          weights[(row - from) * features + i] = f32((value - zeroAt(groups[i]!)) * scale[groups[i]! * out + row]!)
        }
      }
      return weights
    }
  }
}

/**
 * compressed-tensors `pack-quantized`: `weight_packed` `[out, in · bits / 32]`, unsigned values, `weight_scale` `[out, groups]`, and for
 * asymmetric weights `weight_zero_point`, packed along the outputs. A weight is `(q − zero) · scale`, in the type of the scale.
 */
export const packQuantized: ForeignFormat = {
  main: 'weight_packed',
  owns: owned(['weight_packed', 'weight_scale', 'weight_zero_point', 'weight_shape', 'weight_g_idx']),
  describe: ({ weight_packed, weight_scale }, config) => {
    if (!weight_packed || !weight_scale) return undefined
    return { shape: [weight_packed.shape[0]!, (weight_packed.shape[1]! * 32) / bitsOf(config)], dtype: floatTypeOf(weight_scale) }
  },
  rows: ({ weight_packed, weight_scale, weight_zero_point, weight_g_idx }, config, [, features]) => {
    const bits = bitsOf(config)
    const [perWord, mask, offset] = [32 / bits, 2 ** bits - 1, 2 ** (bits - 1)]
    const [q, scale, columns] = [
      words(weight_packed!),
      toFloat32(weight_scale!.bytes, weight_scale!.dtype),
      weight_packed!.shape[1]!
    ]
    const groups = weight_scale!.shape[1] ?? 1
    const groupOf = weight_g_idx && toFloat32(weight_g_idx.bytes, weight_g_idx.dtype)
    const zeros = weight_zero_point && words(weight_zero_point)
    return (from, to) => {
      const weights = new Float32Array((to - from) * features)
      for (let row = from; row < to; row++)
        for (let i = 0; i < features; i++) {
          const group = groupOf ? groupOf[i]! : Math.floor((i * groups) / features)
          const zero = zeros ? (zeros[Math.floor(row / perWord) * groups + group]! >>> (bits * (row % perWord))) & mask : offset
          const value = (q[row * columns + Math.floor(i / perWord)]! >>> (bits * (i % perWord))) & mask
          weights[(row - from) * features + i] = f32((value - zero) * scale[row * groups + group]!)
        }
      return weights
    }
  }
}

/** Bits of the weights in a configuration of compressed-tensors; 4 by default. */
const bitsOf = ({ config_groups: groups }: Readonly<Record<string, unknown>>): number => {
  const [first] = Object.values((groups ?? {}) as Readonly<Record<string, { readonly weights?: { readonly num_bits?: number } }>>)
  return first?.weights?.num_bits ?? 4
}
