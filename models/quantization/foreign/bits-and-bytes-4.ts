import { toFloat32 } from '../../../lib/dtype.js'
import { isRecord } from '../../../lib/plain-object.js'
import type { ForeignFormat, Parts, StoredTensor } from './foreign-format.js'

const f32 = Math.fround
const statePart = /^weight\.quant_state\.bitsandbytes__(nf4|fp4)$/

interface State {
  readonly blocksize: number
  readonly shape: readonly [number, number]
  readonly dtype: string
  readonly nested_blocksize?: number
  readonly nested_offset?: number
}

const stateOf = (parts: Parts<StoredTensor>): State => {
  const bytes = Object.entries(parts).find(([part]) => statePart.test(part))![1].bytes
  const json: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'))
  if (isRecord(json) && typeof json.blocksize === 'number' && Array.isArray(json.shape)) return json as unknown as State
  throw new RangeError('the quantization state has no blocksize and shape')
}

/** Largest absolute value of each block, which double quantization stores in 8 bits. Source: `dequantize_blockwise` (bitsandbytes). */
const largestOf = (
  parts: Parts<StoredTensor>,
  { nested_blocksize: size = 256, nested_offset: offset = 0 }: State
): Float32Array => {
  const largest = parts['weight.absmax']!
  const [map, nested] = [parts['weight.nested_quant_map'], parts['weight.nested_absmax']]
  if (!map || !nested) return toFloat32(largest.bytes, largest.dtype)
  const [values, scales] = [toFloat32(map.bytes, map.dtype), toFloat32(nested.bytes, nested.dtype)]
  return Float32Array.from(largest.bytes, (q, i) => f32(f32(values[q]! * scales[Math.floor(i / size)]!) + f32(offset)))
}

/**
 * bitsandbytes NF4 and FP4: `weight` with two values a byte, the first in the upper half, `weight.quant_map`, the 16 values, and
 * `weight.absmax`, the scale of each block, which double quantization stores in 8 bits. The state, JSON in a tensor, has the shape.
 */
export const bitsAndBytes4: ForeignFormat = {
  main: 'weight.absmax',
  owns: (part) => /^weight(\.(absmax|quant_map|nested_absmax|nested_quant_map))?$/.test(part) || statePart.test(part),
  describe: () => undefined, // the state, which has the shape, is read first: `withShape`
  rows: (parts, _, [, features]) => {
    const state = stateOf(parts)
    const [bytes, map] = [parts.weight!.bytes, parts['weight.quant_map']!]
    const [values, largest] = [Float32Array.from(toFloat32(map.bytes, map.dtype)), largestOf(parts, state)]
    if ('weight.quant_state.bitsandbytes__fp4' in parts) values[8] = -0 // the sign of FP4's second zero, which the map drops
    return (from, to) =>
      Float32Array.from({ length: (to - from) * features }, (_, n) => {
        const i = from * features + n
        const byte = bytes[i >> 1]!
        return f32(values[i & 1 ? byte & 15 : byte >> 4]! * largest[Math.floor(i / state.blocksize)]!)
      })
  }
}

/** Whether a part is the state, which has the shape and type of a weight. */
export const isState = (part: string): boolean => statePart.test(part)

/** Shape and type in the state of a weight. Throws for bytes that are not one. */
export const stateShape = (bytes: Uint8Array) => {
  const { shape, dtype } = stateOf({ 'weight.quant_state.bitsandbytes__nf4': { bytes, dtype: 'U8', shape: [bytes.length] } })
  return { shape, dtype: dtype === 'bfloat16' ? ('BF16' as const) : dtype === 'float16' ? ('F16' as const) : ('F32' as const) }
}
