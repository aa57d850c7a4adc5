import { dtypeBytes, fromFloat32, toFloat32 } from '../../lib/dtype.js'
import type { TensorEntry, TensorFiles } from '../../lib/safetensors/read.js'
import { tf } from '../../lib/tf.js'
import type { Planned } from './fuse.js'

/** What becomes of a stretch of a tensor's numbers, whole rows, of which the first number has the place `at`. */
export type Change = (numbers: Float32Array, at: number) => Promise<Float32Array>

/** Changes of a module tree's tensors, by path. */
export type Changes = ReadonlyMap<string, Change>

/** Numbers `[from, to)` of a stored tensor. */
const read = async (files: TensorFiles, entry: TensorEntry, from: number, to: number): Promise<Float32Array> => {
  const size = dtypeBytes[entry.dtype]
  return toFloat32(await files.readBytes(entry, from * size, to * size), entry.dtype)
}

/** Numbers that are worked on at a time: what an engine frees later than we let go of it stays small. */
const blockSize = 2 ** 18

/** Another tensor in its place. */
export const replacedBy =
  (files: TensorFiles, entry: TensorEntry): Change =>
  (numbers, at) =>
    read(files, entry, at, at + numbers.length)

/** `scaling · B A` on top, `A` `[r, in]` and `B` `[out, r]`, of which the rows that are needed are read. */
export const raisedBy =
  (files: TensorFiles, lora_A: TensorEntry, lora_B: TensorEntry, scaling: number): Change =>
  async (numbers, at) => {
    const [rank, columns] = lora_A.shape as readonly [number, number]
    const [first, rows] = [at / columns, numbers.length / columns]
    const a = tf.tensor2d(await read(files, lora_A, 0, rank * columns), [rank, columns])
    const b = await read(files, lora_B, first * rank, (first + rows) * rank)
    const [sums, most] = [new Float32Array(numbers.length), Math.max(1, Math.floor(blockSize / columns))]
    for (let row = 0; row < rows; row += most) {
      const n = Math.min(most, rows - row)
      const own = (x: Float32Array, width: number) => tf.tensor2d(x.subarray(row * width, (row + n) * width), [n, width])
      const sum = () =>
        own(numbers, columns)
          .add(tf.matMul(own(b, rank), a).mul(scaling))
          .dataSync()
      sums.set(tf.tidy(sum), row * columns)
    }
    a.dispose()
    return sums
  }

/** One change after another. */
export const both =
  (first: Change, second: Change): Change =>
  async (numbers, at) =>
    second(await first(numbers, at), at)

/**
 * The pieces of a planned tensor, float32, where some of what it is made of is changed; nothing where none is. Its parts are of the
 * module tree, and no piece is of two.
 */
export const changedPieces = ({ parts, dtype }: Planned, changes: Changes) => {
  if (!parts.some(({ source }) => changes.has(source))) return undefined
  return async function* (pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    let [part, done] = [0, 0] // of the part's bytes
    for await (const piece of pieces) {
      while (done >= parts[part]!.end - parts[part]!.begin) [part, done] = [part + 1, 0]
      const { source, begin } = parts[part]!
      const numbers = toFloat32(piece, dtype)
      const change = changes.get(source)
      yield fromFloat32(change ? await change(numbers, (begin + done) / dtypeBytes[dtype]) : numbers, 'F32')
      done += piece.byteLength
    }
  }
}
