import { dtypeBytes, toFloat32 } from '../dtype.js'
import { sizeOf } from '../shape.js'
import type { TensorEntry, TensorFiles } from './read.js'

/** A matrix that is read in float32, by ranges of rows. */
export interface StoredMatrix {
  readonly shape: readonly [rows: number, columns: number]
  /** The numbers of rows `[from, to)`. */
  readonly rows: (from: number, to: number) => Promise<Float32Array>
}

/** All numbers of a matrix. */
export const readAll = ({ shape: [rows], rows: read }: StoredMatrix): Promise<Float32Array> => read(0, rows)

/** A stored tensor as a matrix of the rows of its last axis; a vector `[n]` is `[n, 1]`. */
export const storedMatrix = (files: TensorFiles, entry: TensorEntry): StoredMatrix => {
  const columns = entry.shape.length > 1 ? entry.shape.at(-1)! : 1
  const rowBytes = columns * dtypeBytes[entry.dtype]
  return {
    shape: [sizeOf(entry.shape) / Math.max(1, columns), columns],
    rows: async (from, to) => toFloat32(await files.readBytes(entry, from * rowBytes, to * rowBytes), entry.dtype)
  }
}

/** Row ranges `[from, to)` of a matrix, one after the other. */
export const rowRanges = (
  { shape: [, columns], rows }: StoredMatrix,
  ranges: readonly (readonly [from: number, to: number])[]
): StoredMatrix => ({
  shape: [ranges.reduce((n, [from, to]) => n + to - from, 0), columns],
  rows: async (from, to) => {
    const out = new Float32Array((to - from) * columns)
    let at = 0 // first row of the range in the result
    for (const [begin, end] of ranges) {
      const [first, last] = [Math.max(from, at), Math.min(to, at + end - begin)]
      if (first < last) out.set(await rows(begin + first - at, begin + last - at), (first - from) * columns)
      at += end - begin
    }
    return out
  }
})

/** A matrix whose number in row i and column j is the source's number `indexOf(i, j)`. The source is read whole, once. */
export const rearranged = (
  source: StoredMatrix,
  [rows, columns]: readonly [rows: number, columns: number],
  indexOf: (row: number, column: number) => number
): StoredMatrix => {
  let all: Promise<Float32Array> | undefined
  return {
    shape: [rows, columns],
    rows: async (from, to) => {
      all ??= readAll(source)
      const numbers = await all
      return Float32Array.from(
        { length: (to - from) * columns },
        (_, i) => numbers[indexOf(from + Math.floor(i / columns), i % columns)]!
      )
    }
  }
}

/** The transpose of a matrix. */
export const transposed = (source: StoredMatrix): StoredMatrix => {
  const [rows, columns] = source.shape
  return rearranged(source, [columns, rows], (i, j) => j * columns + i)
}
