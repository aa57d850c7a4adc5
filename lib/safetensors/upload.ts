import { dtypeBytes, type StoredDtype, toFloat32 } from '../dtype.js'
import { attr, type Handle, type NativeBackend, nativeBackend } from '../engines/native.js'
import { runKernel } from '../ops/kernel.js'
import { type Form, formOf, type PackedWeight, pack } from '../quantization/formats.js'
import { sizeOf } from '../shape.js'
import { tf } from '../tf.js'

/** Bytes of a stored tensor, in order; a piece is good until the next is asked for. */
export type Pieces = AsyncIterable<Uint8Array>

const halves: Readonly<Partial<Record<StoredDtype, 'bfloat16' | 'float16'>>> = { BF16: 'bfloat16', F16: 'float16' }
const float32 = attr.type('T', 'float32')

/** Stored bytes as float32 in memory of TensorFlow's own. Halves widen there, on all cores: two of them travel as one int32. */
const toHandle = (engine: NativeBackend, bytes: Uint8Array, dtype: StoredDtype): Handle => {
  const half = bytes.byteLength % 4 === 0 && bytes.byteOffset % 4 === 0 ? halves[dtype] : undefined
  const source = half
    ? tf.tensor1d(new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4), 'int32')
    : tf.tensor1d(toFloat32(bytes, dtype), 'float32')
  const ids = engine.handles([source])
  const run = (): Handle => {
    if (!half) return engine.run('DeepCopy', [float32], ids)[0]!
    const [small] = engine.run('Bitcast', [attr.type('T', 'int32'), attr.type('type', half)], ids)
    const cast = [attr.type('SrcT', half), attr.type('DstT', 'float32'), attr.bool('Truncate', false)]
    const [floats] = engine.run('Cast', cast, [small!.id])
    engine.release(small!)
    return floats!
  }
  const handle = run()
  source.dispose()
  return handle
}

/** A tensor under construction: rows `[N, width]` are written in their place, so that no second copy of them all ever is. */
const inPlace = (engine: NativeBackend, rows: number, width: number) => {
  const shape = tf.tensor1d([rows, width], 'int32')
  const zero = tf.scalar(0)
  // filled, not empty: on all cores, which is the quickest way to have its pages
  let [whole] = engine.run('Fill', [float32, attr.type('index_type', 'int32')], engine.handles([shape, zero]))
  tf.dispose([shape, zero])
  const write = (from: number, to: number, values: Handle): void => {
    const places = tf.range(from, to, 1, 'int32')
    const value = engine.tensor(values).reshape([to - from, width])
    const [next] = engine.run('InplaceUpdate', [float32], [whole!.id, ...engine.handles([places, value])])
    engine.release(whole!)
    whole = next
  }
  return { write, done: () => engine.tensor(whole!), drop: () => engine.release(whole!) }
}

const uploadNative = async (engine: NativeBackend, pieces: Pieces, dtype: StoredDtype, shape: readonly number[]) => {
  const [width, size] = [shape.at(-1) ?? 1, sizeOf(shape)]
  let whole: ReturnType<typeof inPlace> | undefined
  let at = 0
  try {
    for await (const piece of pieces) {
      const numbers = piece.byteLength / dtypeBytes[dtype]
      const handle = toHandle(engine, piece, dtype)
      if (numbers === size) return tf.tidy(() => engine.tensor(handle).reshape([...shape]))
      whole ??= inPlace(engine, size / width, width)
      const [rows, { write }] = [numbers / width, whole]
      tf.tidy(() => write(at, at + rows, handle))
      at += rows
    }
  } catch (error) {
    whole?.drop()
    throw error
  }
  return whole ? tf.tidy(() => whole.done().reshape([...shape])) : tf.zeros([...shape])
}

/** A piece of whole rows of `columns` weights as words of a packed form, `[rows, words]`. */
export const packPiece = async (piece: Uint8Array, dtype: StoredDtype, columns: number, form: Form): Promise<tf.Tensor2D> => {
  const once = async function* () {
    yield piece
  }
  const rows = await uploadPieces(once(), dtype, [piece.byteLength / dtypeBytes[dtype] / columns, columns])
  try {
    return formOf(pack(form, rows as tf.Tensor2D)).tensor
  } finally {
    rows.dispose()
  }
}

/** A weight of stored bytes in a packed form: each piece is packed as it comes. */
export const uploadPacked = async (
  pieces: Pieces,
  dtype: StoredDtype,
  [rows, columns]: readonly [number, number],
  form: Form
): Promise<PackedWeight> => {
  const words: tf.Tensor2D[] = []
  try {
    for await (const piece of pieces) words.push(await packPiece(piece, dtype, columns, form))
    const all =
      words.length === 1 ? words[0]!.clone() : tf.tidy(() => (rows > 0 ? tf.concat2d(words, 0) : tf.zeros([0, 0], 'int32')))
    return { [form]: all } as unknown as PackedWeight
  } finally {
    tf.dispose(words)
  }
}

/** Words that are packed already, `[rows, words]`, from pieces of whole rows. */
export const uploadWords = async (pieces: Pieces, shape: readonly [number, number], form: Form): Promise<PackedWeight> => {
  const words = new Int32Array(sizeOf(shape))
  const bytes = new Uint8Array(words.buffer)
  let at = 0
  for await (const piece of pieces) {
    bytes.set(piece, at)
    at += piece.byteLength
  }
  return { [form]: tf.tensor2d(words, shape as [number, number], 'int32') } as unknown as PackedWeight
}

/**
 * A float32 tensor of stored bytes that come in pieces of whole rows (of the last axis). bf16 and f16 widen exactly. On the
 * native engine nothing but the tensor itself and a piece is ever in memory, and no garbage is left that only waits to be
 * collected.
 */
export const uploadPieces = async (pieces: Pieces, dtype: StoredDtype, shape: readonly number[]): Promise<tf.Tensor> => {
  const engine = tf.getBackend() === 'tensorflow' ? nativeBackend() : undefined
  if (engine) return uploadNative(engine, pieces, dtype, shape)
  const values = new Float32Array(sizeOf(shape))
  let at = 0
  for await (const piece of pieces) {
    values.set(toFloat32(piece, dtype), at)
    at += piece.byteLength / dtypeBytes[dtype]
  }
  return tf.tensor(values, [...shape], 'float32')
}

/** Types that the engine's kernel reads. */
const readable: ReadonlySet<StoredDtype> = new Set<StoredDtype>(['F32', 'BF16', 'F16'])

/**
 * A tensor of the bytes of an open file from `offset` on, in float32 or a packed form, read and converted on all cores with a few
 * pages of memory beside the tensor; `undefined` where the engine has no kernel for it. `file` is a descriptor. Throws when the
 * file ends before.
 */
export const uploadRange = (
  file: number,
  offset: number,
  dtype: StoredDtype,
  shape: readonly number[],
  form?: Form
): tf.Tensor | PackedWeight | undefined => {
  if (!readable.has(dtype) || !tf.getKernel('ReadTensor', tf.getBackend())) return undefined
  const range = { file, offset, dtype }
  if (!form) return tf.tidy(() => runKernel<tf.Tensor>('ReadTensor', {}, { ...range, size: sizeOf(shape) }).reshape([...shape]))
  const [rows, columns] = shape
  return { [form]: runKernel<tf.Tensor>('ReadPacked', {}, { ...range, rows, columns, form }) } as unknown as PackedWeight
}

/** The same of words that are packed already, `[rows, words]`. */
export const uploadWordRange = (
  file: number,
  offset: number,
  [rows, columns]: readonly [number, number],
  form: Form
): PackedWeight | undefined =>
  tf.getKernel('ReadPacked', tf.getBackend())
    ? ({
        [form]: runKernel<tf.Tensor>('ReadPacked', {}, { file, offset, dtype: 'words', rows, columns, form })
      } as unknown as PackedWeight)
    : undefined
