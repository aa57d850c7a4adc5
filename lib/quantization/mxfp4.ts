import { sizeOf } from '../shape.js'

/** Four-bit floats by their bits: sign, two of exponent, one of fraction. Source: OCP Microscaling Formats 1.0, E2M1. */
const fp4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6] as const

/** Bytes of a block of 32 numbers that share a scale; the lower four bits come first. */
const blockBytes = 16

/**
 * MXFP4 weights as numbers: `blocks` `[E, out, G, 16]` bytes and `scales` `[E, out, G]`, powers of two with a bias of 127, are
 * matrices `[out, 32·G]`; they come back transposed, `[E, 32·G, out]`, as GPT-OSS multiplies them.
 * Throws a `RangeError` when the sizes disagree. Source: `convert_moe_packed_tensors` (transformers 5.24).
 */
export const dequantizeMxfp4 = (
  blocks: Uint8Array,
  scales: Uint8Array,
  [E, out, G]: readonly [experts: number, out: number, groups: number]
): Float32Array => {
  if (scales.length !== sizeOf([E, out, G]) || blocks.length !== scales.length * blockBytes)
    throw new RangeError(`mxfp4: [${E}, ${out}, ${G}] scales, got ${scales.length}, and ${blocks.length} bytes of blocks`)
  const inputs = 2 * blockBytes * G
  const numbers = new Float32Array(E * inputs * out)
  for (let group = 0; group < scales.length; group++) {
    const row = Math.floor(group / G) // e · out + o
    const scale = 2 ** (scales[group]! - 127)
    let at = Math.floor(row / out) * inputs * out + (group % G) * 2 * blockBytes * out + (row % out)
    for (let i = group * blockBytes; i < (group + 1) * blockBytes; i++) {
      numbers[at] = fp4[blocks[i]! & 15]! * scale
      numbers[at + out] = fp4[blocks[i]! >> 4]! * scale
      at += 2 * out
    }
  }
  return numbers
}
