import { tidyDataSync } from '../data-sync.js'
import { tf } from '../tf.js'
import { upperCholesky } from './cholesky.js'
import { type BlockFormat, groupFormats, packedRowLength, writeGroup } from './formats.js'
import { groupSize } from './group.js'

/**
 * The share of the diagonal in the moments that are used, `(1 - s) M + s diag(M)`. A calibration text has few tokens for the K² correlations
 * of a layer's inputs, and is never quite like what the model reads later; the sizes of the channels are far more certain.
 */
const SHRINKAGE = 0.5
/** Share of the mean diagonal that is added to the diagonal, for channels that are always 0. */
const DAMPING = 0.01

/** Rows of a weight that are rounded together; they bound the memory that the rows of a head need. */
const CHUNK = 8192

/** The Cholesky factor of the shrunk moments, with rows scaled so that the diagonal is 1, and the squares of that diagonal. */
const errorFactor = (moments: Float32Array, K: number) => {
  let mean = 0
  for (let i = 0; i < K; i++) mean += moments[i * K + i]! / K
  const shrunk = moments.map((x) => (1 - SHRINKAGE) * x)
  for (let i = 0; i < K; i++) shrunk[i * K + i] = moments[i * K + i]! + (mean > 0 ? DAMPING * mean : 1)
  const factor = upperCholesky(shrunk, K)
  const importance = new Float32Array(K)
  for (let i = 0; i < K; i++) {
    const pivot = factor[i * K + i]!
    importance[i] = pivot * pivot
    for (let j = i; j < K; j++) factor[i * K + j]! /= pivot
  }
  return { factor, importance }
}

const transposed = (x: Float32Array, [rows, columns]: readonly [number, number]): Float32Array =>
  tidyDataSync(() => tf.tensor2d(x, [rows, columns]).transpose()) as Float32Array

/**
 * Rows `[from, to)` of the error's part that later columns cause, `[to - from, N]`: `factor[from:to, to:] · errors[to:]`, zeros where there
 * are no later columns.
 */
const laterErrors = (factor: Float32Array, errors: Float32Array, K: number, from: number, to: number): Float32Array => {
  const [N, later] = [errors.length / K, K - to]
  if (later === 0) return new Float32Array((to - from) * N)
  const rows = new Float32Array((to - from) * later)
  for (let i = from; i < to; i++) rows.set(factor.subarray(i * K + to, (i + 1) * K), (i - from) * later)
  return tidyDataSync(() =>
    tf.matMul(tf.tensor2d(rows, [to - from, later]), tf.tensor2d(errors.subarray(to * N), [later, N]))
  ) as Float32Array
}

/** Packed rows of `weights`, of at most some thousand rows. */
const quantizeChunk = (
  format: BlockFormat,
  weights: Float32Array,
  { factor, importance }: ReturnType<typeof errorFactor>,
  K: number
): Uint8Array => {
  const N = weights.length / K
  const { scaleOf, numberOf, levelOf } = groupFormats[format]
  const [W, errors] = [transposed(weights, [N, K]), new Float32Array(K * N)]
  const rowBytes = 4 * packedRowLength(format, K)
  const bytes = new Uint8Array(N * rowBytes)
  for (let from = Math.floor((K - 1) / groupSize) * groupSize; from >= 0; from -= groupSize) {
    const to = Math.min(K, from + groupSize)
    const aims = laterErrors(factor, errors, K, from, to)
    for (let i = 0; i < aims.length; i++) aims[i]! += W[from * N + i]!
    const shares = new Float32Array(groupSize)
    shares.set(importance.subarray(from, to))
    const group = new Float32Array(groupSize)
    const scales = Float32Array.from({ length: N }, (_, n) => {
      for (let j = from; j < to; j++) group[j - from] = aims[(j - from) * N + n]!
      return scaleOf(group, shares)
    })
    const numbers = new Int8Array(N * groupSize)
    if (to - from < groupSize)
      for (let i = 0; i < numbers.length; i++) numbers[i] = numberOf(0, scales[Math.floor(i / groupSize)]!)
    for (let j = to - 1; j >= from; j--) {
      const aim = aims.subarray((j - from) * N, (j - from + 1) * N)
      for (let i = j + 1; i < to; i++) {
        const share = factor[j * K + i]!
        for (let n = 0; n < N; n++) aim[n]! += share * errors[i * N + n]!
      }
      for (let n = 0; n < N; n++) {
        const number = numberOf(aim[n]!, scales[n]!)
        numbers[n * groupSize + j - from] = number
        errors[j * N + n] = W[j * N + n]! - scales[n]! * levelOf(number)
      }
    }
    for (let n = 0; n < N; n++) {
      const row = bytes.subarray(n * rowBytes, (n + 1) * rowBytes)
      writeGroup(format, row, from, scales[n]!, numbers.subarray(n * groupSize, (n + 1) * groupSize))
    }
  }
  return bytes
}

/**
 * Quantizes a weight `[N, K]` in rows so that its products with inputs like those of a calibration change least: the error of each column
 * is carried over to the columns that are not yet rounded. `moments` is the mean of `x xᵀ` over the inputs x, `[K, K]`; half of it is
 * replaced by its diagonal (`SHRINKAGE`). Returns packed rows of the format.
 *
 * With the factor R of these moments, `Rᵀ R`, the squared error of the outputs is `‖R (w - q)‖²`; columns are rounded from the last to the
 * first, each to the level nearest to `w_j + Σ_{i>j} R_ji / R_jj (w_i - q_i)`. The squares of `R_jj` weight the search of scales.
 * Source: Frantar et al. 2022, GPTQ; as Babai's nearest plane: Chen et al. 2025, "The geometry of LLM quantization".
 */
export const quantizeCalibrated = (
  format: BlockFormat,
  weights: Float32Array,
  moments: Float32Array,
  columns: number
): Int32Array => {
  const [K, N] = [columns, weights.length / columns]
  if (moments.length !== K * K)
    throw new RangeError(`quantizeCalibrated: moments of ${K} columns have ${K * K} numbers, got ${moments.length}`)
  const factor = errorFactor(moments, K)
  const bytes = new Uint8Array(4 * N * packedRowLength(format, K))
  for (let from = 0; from < N; from += CHUNK) {
    const rows = weights.subarray(from * K, Math.min(N, from + CHUNK) * K)
    bytes.set(quantizeChunk(format, rows, factor, K), 4 * from * packedRowLength(format, K))
  }
  return new Int32Array(bytes.buffer)
}
