import { tidyDataSync } from '../../lib/data-sync.js'
import { dtypeBytes, fromFloat32, toFloat32 } from '../../lib/dtype.js'
import type { StoredMatrix } from '../../lib/safetensors/stored-matrix.js'
import { tf } from '../../lib/tf.js'
import type { Planned } from './fuse.js'

/** New values of whole rows of a weight; `offset` is the index of the first number of `values` in the weight. */
export type WeightChange = (values: Float32Array, offset: number) => Promise<Float32Array>

/** Changes of weights by path in the module tree. */
export type WeightChanges = ReadonlyMap<string, WeightChange>

/** Most numbers of one step of `addProduct`: engines free memory later than tensors are disposed, so that steps stay small. */
const stepSize = 2 ** 18

/** Replaces a weight by stored numbers of the same shape. */
export const replaceWeight =
  (matrix: StoredMatrix): WeightChange =>
  (values, offset) => {
    const columns = matrix.shape[1]
    return matrix.rows(offset / columns, (offset + values.length) / columns)
  }

/** A low-rank update of a weight of R rows: `W + scaling · B A`. */
export interface LowRankUpdate {
  /** `[rank, columns]`; of E stacked experts, `[E · rank, columns]`. */
  readonly A: StoredMatrix
  /** `[R, rank]`; of E stacked experts, whose R / E rows belong to one expert each. */
  readonly B: StoredMatrix
  readonly scaling: number
  /** `[R, 1]`: the length of each row of the sum, for DoRA. */
  readonly magnitude?: StoredMatrix | undefined
}

/** Scales rows to the given lengths, in place. */
const scaleRows = (values: Float32Array, lengths: Float32Array): Float32Array => {
  const columns = values.length / lengths.length
  for (const [i, length] of lengths.entries()) {
    const row = values.subarray(i * columns, (i + 1) * columns)
    const factor = length / Math.sqrt(row.reduce((sum, x) => sum + x * x, 0))
    for (let j = 0; j < columns; j++) row[j]! *= factor
  }
  return values
}

/** Adds a low-rank update to a weight; of `B` only the required rows are read. */
export const addLoraUpdate =
  ({ A, B, scaling, magnitude }: LowRankUpdate): WeightChange =>
  async (values, offset) => {
    const [rank, columns] = [B.shape[1], A.shape[1]]
    const rowsPerExpert = B.shape[0] / (A.shape[0] / rank)
    const [first, last] = [offset / columns, (offset + values.length) / columns]
    const out = new Float32Array(values.length)
    for (let row = first; row < last; ) {
      const expert = Math.floor(row / rowsPerExpert)
      const end = Math.min(last, (expert + 1) * rowsPerExpert)
      const weight = values.subarray((row - first) * columns, (end - first) * columns)
      const [a, b] = [await A.rows(expert * rank, (expert + 1) * rank), await B.rows(row, end)]
      out.set(addProduct(weight, a, b, [end - row, rank, columns], scaling), (row - first) * columns)
      row = end
    }
    return magnitude ? scaleRows(out, await magnitude.rows(first, last)) : out
  }

/** `W + scaling · B A`, W `[rows, columns]`, B `[rows, rank]`, A `[rank, columns]`, a few rows at a time. Leaves no tensors. */
export const addProduct = (
  weight: Float32Array,
  a: Float32Array,
  b: Float32Array,
  [rows, rank, columns]: readonly [rows: number, rank: number, columns: number],
  scaling: number
): Float32Array => {
  const [sum, rowsPerStep] = [new Float32Array(weight.length), Math.max(1, Math.floor(stepSize / columns))]
  const A = tf.tensor2d(a, [rank, columns])
  try {
    for (let row = 0; row < rows; row += rowsPerStep) {
      const n = Math.min(rowsPerStep, rows - row)
      const rowsOf = (x: Float32Array, width: number) => tf.tensor2d(x.subarray(row * width, (row + n) * width), [n, width])
      const step = tidyDataSync(() => rowsOf(weight, columns).add(tf.matMul(rowsOf(b, rank), A).mul(scaling)))
      sum.set(step, row * columns)
    }
    return sum
  } finally {
    A.dispose()
  }
}

/** Applies `first`, then `second`. */
export const composeChanges =
  (first: WeightChange, second: WeightChange): WeightChange =>
  async (values, offset) =>
    second(await first(values, offset), offset)

/**
 * A function that changes the pieces of a planned tensor and yields them in float32; undefined where no change applies to any part.
 * The parts name weights of the module tree, and no piece spans two parts.
 */
export const changedPieces = ({ parts, dtype }: Planned, changes: WeightChanges) => {
  if (!parts.some(({ source }) => changes.has(source))) return undefined
  return async function* (pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let [part, bytesDone] = [0, 0] // of the current part
    for await (const piece of pieces) {
      while (bytesDone >= parts[part]!.end - parts[part]!.begin) [part, bytesDone] = [part + 1, 0]
      const { source, begin } = parts[part]!
      const values = toFloat32(piece, dtype)
      const change = changes.get(source)
      const changed = change ? await change(values, (begin + bytesDone) / dtypeBytes[dtype]) : values
      yield fromFloat32(changed, 'F32')
      bytesDone += piece.byteLength
    }
  }
}
