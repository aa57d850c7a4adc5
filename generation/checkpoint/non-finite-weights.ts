import { tidyDataSync } from '../../lib/data-sync.js'
import { namedParameters } from '../../lib/params.js'
import { packedScales } from '../../lib/quantization/formats.js'
import type { tf } from '../../lib/tf.js'
import { splitFormat } from '../../models/quantization/quantized-keys.js'

const EXPONENT = 0x7f80 // bits of a bfloat16 that are all 1 in NaN and infinities

/** Whether a scale of a packed weight is NaN or infinite. */
const hasNonFiniteScale = (key: string, packed: tf.Tensor): boolean => {
  const { format } = splitFormat(key)
  if (!format || packed.size === 0) return false
  const scales = tidyDataSync(() => packedScales(format, packed))
  return scales.some((pair) => (pair & EXPONENT) === EXPONENT || ((pair >>> 16) & EXPONENT) === EXPONENT)
}

/**
 * Keys of vectors (norm weights, biases, layer scales) and of quantized weights' scales with values that are NaN or infinite. Other matrices
 * are not scanned: reading them back would take as long as loading them.
 */
const nonFiniteKeys = (params: unknown): readonly string[] =>
  namedParameters(params).flatMap(([key, tensor]) => {
    const isVector = tensor.rank <= 1 && tensor.dtype === 'float32'
    const isDamaged = isVector ? !tensor.dataSync().every(Number.isFinite) : hasNonFiniteScale(key, tensor)
    return isDamaged ? [key] : []
  })

/** One line about damaged weights; undefined if every vector and every scale is finite. */
export const nonFiniteWarning = (dir: string, params: unknown): string | undefined => {
  const [first, ...others] = nonFiniteKeys(params)
  if (first === undefined) return undefined
  const more = others.length > 0 ? ` and ${others.length} more tensors` : ''
  return `${dir}: ${first}${more} have values that are NaN or infinite; answers will fail, download or convert the checkpoint again`
}
