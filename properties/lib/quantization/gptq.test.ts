import assert from 'node:assert/strict'
import fc from 'fast-check'
import { upperCholesky } from '../../../lib/quantization/cholesky.js'
import { type BlockFormat, dequantizeRows, quantizeRows } from '../../../lib/quantization/formats.js'
import { quantizeCalibrated } from '../../../lib/quantization/gptq.js'
import { tf } from '../../../lib/tf.js'
import { count, seed } from '../../arbitraries/tensor.js'
import { check } from '../../laws/check.js'

const normal = (shape: readonly number[], seed: number): Float32Array =>
  tf.tidy(() => tf.randomNormal([...shape], 0, 1, 'float32', seed).dataSync() as Float32Array)

/** `a b` of `[m, k]` and `[k, n]`; with `transposed`, `aᵀ b` of `[k, m]` and `[k, n]`. */
const product = (a: Float32Array, b: Float32Array, [m, k, n]: readonly [number, number, number], transposed = false) =>
  tf.tidy(() => {
    const left = tf.tensor2d(a, transposed ? [k, m] : [m, k])
    return tf.matMul(left, tf.tensor2d(b, [k, n]), transposed).dataSync() as Float32Array
  })

const squares = (x: Float32Array): number => x.reduce((sum, v) => sum + v * v, 0)
const difference = (a: Float32Array, b: Float32Array): Float32Array => a.map((x, i) => x - b[i]!)

/** Correlated inputs `[rows, K]` with channels of very different sizes, as those of language models. */
const correlated = (rows: number, K: number, seed: number): Float32Array => {
  const mixing = normal([K, K], seed).map((x, i) => x * ((i % K) % 7 === 0 ? 5 : 1) + (i % (K + 1) === 0 ? 1 : 0))
  return product(normal([rows, K], seed + 1), mixing, [rows, K, K])
}

const momentsOf = (x: Float32Array, rows: number, K: number): Float32Array =>
  product(x, x, [K, rows, K], true).map((value) => value / rows)

const formats = fc.constantFrom<BlockFormat>('int4', 'int6', 'int8')

describe('calibrated quantization', () => {
  it('Cholesky: Rᵀ R is the matrix, R is upper triangular, in one block or several', () =>
    check(fc.tuple(fc.oneof(count(40), fc.constantFrom(127, 128, 129, 300)), seed), ([K, seed]) => {
      const A = momentsOf(normal([2 * K, K], seed), 2 * K, K).map((x, i) => x + (i % (K + 1) === 0 ? 0.1 : 0))
      const R = upperCholesky(A, K)
      for (let i = 0; i < K; i++) for (let j = 0; j < i; j++) assert.equal(R[i * K + j], 0)
      const error = Math.sqrt(squares(difference(product(R, R, [K, K, K], true), A)) / squares(A))
      assert.ok(error < 1e-5, `${error}`)
    }))

  it('Cholesky: a matrix that is not positive definite is an error', () => {
    assert.throws(() => upperCholesky(Float32Array.of(1, 2, 2, 1), 2), /not positive definite/)
    assert.throws(() => upperCholesky(Float32Array.of(Number.NaN), 1), /not positive definite/)
  })

  it('inputs without correlations or preferences: the errors of plain quantization, or smaller ones', () =>
    check(fc.tuple(formats, count(100), seed), ([format, K, seed]) => {
      const N = 24
      const weights = normal([N, K], seed)
      const identity = Float32Array.from({ length: K * K }, (_, i) => (i % (K + 1) === 0 ? 1 : 0))
      const errorOf = (packed: Int32Array): number => squares(difference(dequantizeRows(format, packed, K), weights))
      const [plain, found] = [quantizeRows(format, weights, K), quantizeCalibrated(format, weights, identity, K)].map(errorOf)
      assert.ok(found! <= 1.02 * plain! + 1e-12, `${format} ${found} of ${plain}`) // scales are bfloat16
    }))

  it('fewer inputs than channels: the error for other inputs of the same kind is smaller than with plain quantization', () =>
    check(fc.tuple(fc.constantFrom(64, 96), seed), ([K, seed]) => {
      const [N, few] = [48, K / 4]
      const weights = normal([N, K], seed)
      const x = correlated(few + 400, K, seed + 2)
      const other = x.subarray(few * K)
      const errorOf = (packed: Int32Array): number => {
        const error = difference(dequantizeRows('int4', packed, K), weights)
        const transposed = tf.tidy(() => tf.tensor2d(error, [N, K]).transpose().dataSync() as Float32Array)
        return squares(product(other, transposed, [400, K, N]))
      }
      const plain = errorOf(quantizeRows('int4', weights, K))
      const calibrated = errorOf(quantizeCalibrated('int4', weights, momentsOf(x.subarray(0, few * K), few, K), K))
      assert.ok(calibrated < plain, `${K} columns: ${calibrated} of ${plain}`)
    }))

  it('rows are rounded alone: many rows, in chunks, have the result of each', () => {
    const [N, K] = [8200, 40]
    const [weights, moments] = [normal([N, K], 5), momentsOf(correlated(80, K, 6), 80, K)]
    const all = quantizeCalibrated('int6', weights, moments, K)
    const length = all.length / N
    for (const [from, to] of [
      [0, 3],
      [8190, 8200]
    ] as const) {
      // biome-ignore format: pairs
      const some = quantizeCalibrated('int6', weights.slice(from * K, to * K), moments, K)
      const [found, expected] = [
        dequantizeRows('int6', some, K),
        dequantizeRows('int6', all.slice(from * length, to * length), K)
      ]
      assert.ok(squares(difference(found, expected)) < 1e-3 * squares(weights.subarray(from * K, to * K)))
    }
  })

  it('correlated inputs: the error of the outputs is smaller than with plain quantization', () =>
    check(fc.tuple(formats, fc.constantFrom(33, 64, 100), seed), ([format, K, seed]) => {
      const [N, rows] = [48, 400]
      const [weights, x] = [normal([K, N], seed), correlated(rows, K, seed + 2)]
      const errorOf = (packed: Int32Array): number => {
        const error = difference(dequantizeRows(format, packed, K), weights)
        const transposed = tf.tidy(() => tf.tensor2d(error, [N, K]).transpose().dataSync() as Float32Array)
        return squares(product(x, transposed, [rows, K, N]))
      }
      const plain = errorOf(quantizeRows(format, weights, K))
      const calibrated = errorOf(quantizeCalibrated(format, weights, momentsOf(x, rows, K), K))
      assert.ok(calibrated < 0.9 * plain, `${format}, ${K} columns: ${calibrated} of ${plain}`)
    }))

  it('channels that are always 0, and fewer inputs than channels, leave finite weights', () => {
    const [N, K] = [4, 70]
    const weights = normal([N, K], 1)
    for (const moments of [new Float32Array(K * K), momentsOf(normal([2, K], 3), 2, K)]) {
      const found = dequantizeRows('int4', quantizeCalibrated('int4', weights, moments, K), K)
      assert.ok(found.every(Number.isFinite))
      assert.ok(squares(difference(found, weights)) < 0.3 * squares(weights))
    }
  })

  it('moments of another size are an error', () =>
    assert.throws(() => quantizeCalibrated('int4', new Float32Array(8), new Float32Array(9), 4), /moments of 4 columns/))
})
