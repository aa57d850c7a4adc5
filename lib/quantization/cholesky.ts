import { tidyDataSync } from '../data-sync.js'
import { tf } from '../tf.js'

/** Rows that are factored one by one before the rest of the matrix is updated in one product. */
const BLOCK = 128

/** `y += factor · x` over the columns from `from` on of two rows of length `K`. */
const addRow = (a: Float32Array, K: number, y: number, x: number, factor: number, from: number): void => {
  for (let j = from; j < K; j++) a[y * K + j]! += factor * a[x * K + j]!
}

/** Rows `start` to `end` of the factor, from rows that all earlier blocks have been subtracted from. */
const factorRows = (a: Float32Array, K: number, start: number, end: number): void => {
  for (let i = start; i < end; i++) {
    for (let k = start; k < i; k++) addRow(a, K, i, k, -a[k * K + i]!, i)
    const pivot = a[i * K + i]!
    if (!(pivot > 0)) throw new RangeError(`cholesky: the matrix is not positive definite (pivot ${i} is ${pivot})`)
    const inverse = 1 / Math.sqrt(pivot)
    for (let j = i; j < K; j++) a[i * K + j]! *= inverse
  }
}

/** Subtracts `Pᵀ P` from the rows after `end`, where P are the rows `start` to `end`, from column `end` on. */
const updateRest = (a: Float32Array, K: number, start: number, end: number): void => {
  const rest = K - end
  const panel = new Float32Array((end - start) * rest)
  for (let i = start; i < end; i++) panel.set(a.subarray(i * K + end, (i + 1) * K), (i - start) * rest)
  const product = tidyDataSync(() => {
    const P = tf.tensor2d(panel, [end - start, rest])
    return tf.matMul(P, P, true, false)
  }) as Float32Array
  for (let i = 0; i < rest; i++) for (let j = i; j < rest; j++) a[(end + i) * K + end + j]! -= product[i * rest + j]!
}

/**
 * The upper triangular `R` with `Rᵀ R = A`, of a symmetric positive definite `A` `[K, K]` in rows; in blocks, so that the engine computes
 * most of it. Only the upper triangle of `A` is read. Throws a `RangeError` for another matrix.
 */
export const upperCholesky = (A: Float32Array, K: number): Float32Array => {
  const R = A.slice()
  for (let start = 0; start < K; start += BLOCK) {
    const end = Math.min(K, start + BLOCK)
    factorRows(R, K, start, end)
    if (end < K) updateRest(R, K, start, end)
  }
  for (let i = 0; i < K; i++) R.fill(0, i * K, i * K + i)
  return R
}
