import { namedParameters } from '../../lib/params.js'

/**
 * Keys of vectors (norm weights, biases, layer scales) with values that are NaN or infinite. Matrices are not scanned: reading them
 * back would take as long as loading them.
 */
export const nonFiniteVectors = (params: unknown): readonly string[] =>
  namedParameters(params).flatMap(([key, tensor]) =>
    tensor.rank <= 1 && tensor.dtype === 'float32' && !tensor.dataSync().every(Number.isFinite) ? [key] : []
  )

/** One line about damaged weights; undefined if every vector is finite. */
export const nonFiniteWarning = (dir: string, params: unknown): string | undefined => {
  const [first, ...others] = nonFiniteVectors(params)
  if (first === undefined) return undefined
  const more = others.length > 0 ? ` and ${others.length} more tensors` : ''
  return `${dir}: ${first}${more} have values that are NaN or infinite; answers will fail, download or convert the checkpoint again`
}
