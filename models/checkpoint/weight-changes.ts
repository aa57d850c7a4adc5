import { tidyDataSync } from '../../lib/data-sync.js'
import { dtypeBytes, fromFloat32, toFloat32 } from '../../lib/dtype.js'
import type { TensorEntry, TensorFiles } from '../../lib/safetensors/read.js'
import { tf } from '../../lib/tf.js'
import type { Planned } from './fuse.js'

/** New values of whole rows of a weight; `offset` is the index of the first number of `values` in the weight. */
export type WeightChange = (values: Float32Array, offset: number) => Promise<Float32Array>

/** Changes of weights by path in the module tree. */
export type WeightChanges = ReadonlyMap<string, WeightChange>

/** Numbers `[from, to)` of a stored tensor, in float32. */
const readRange = async (files: TensorFiles, entry: TensorEntry, from: number, to: number): Promise<Float32Array> => {
  const size = dtypeBytes[entry.dtype]
  return toFloat32(await files.readBytes(entry, from * size, to * size), entry.dtype)
}

/** Most numbers of one step of `addLoraUpdate`: engines free memory later than tensors are disposed, so that steps stay small. */
const stepSize = 2 ** 18

/** Replaces a weight by a stored tensor of the same shape. */
export const replaceWeight =
  (files: TensorFiles, entry: TensorEntry): WeightChange =>
  (values, offset) =>
    readRange(files, entry, offset, offset + values.length)

/** Adds `scaling · B A` to a weight, `A` `[r, in]` and `B` `[out, r]`; of `B` only the required rows are read. */
export const addLoraUpdate =
  (files: TensorFiles, lora_A: TensorEntry, lora_B: TensorEntry, scaling: number): WeightChange =>
  async (values, offset) => {
    const [rank, columns] = lora_A.shape as readonly [number, number]
    const [firstRow, rows] = [offset / columns, values.length / columns]
    const a = await readRange(files, lora_A, 0, rank * columns)
    const b = await readRange(files, lora_B, firstRow * rank, (firstRow + rows) * rank)
    return addProduct(values, a, b, [rows, rank, columns], scaling)
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
