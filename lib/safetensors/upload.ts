import { dtypeBytes, type StoredDtype, toFloat32 } from '../dtype.js'
import { attr, type NativeBackend, nativeBackend, type TensorHandle } from '../engines/native.js'
import { runKernel } from '../ops/kernel.js'
import {
  formatOf,
  halfDtypes,
  isHalfFormat,
  type QuantizationFormat,
  type QuantizedWeight,
  quantize
} from '../quantization/formats.js'
import { sizeOf } from '../shape.js'
import { tf } from '../tf.js'

/** Bytes of a stored tensor in order; a chunk is valid until the next one is requested. */
export type Chunks = AsyncIterable<Uint8Array>

const halfTypes: Readonly<Partial<Record<StoredDtype, 'bfloat16' | 'float16'>>> = { BF16: 'bfloat16', F16: 'float16' }
const float32 = attr.type('T', 'float32')

/** Stored bytes as a float32 tensor of TensorFlow. 16-bit floats are transferred in pairs as int32, and cast to float32 on all cores. */
const toHandle = (engine: NativeBackend, bytes: Uint8Array, dtype: StoredDtype): TensorHandle => {
  const half = bytes.byteLength % 4 === 0 && bytes.byteOffset % 4 === 0 ? halfTypes[dtype] : undefined
  const source = half
    ? tf.tensor1d(new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4), 'int32')
    : tf.tensor1d(toFloat32(bytes, dtype), 'float32')
  const ids = engine.handles([source])
  const run = (): TensorHandle => {
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

/** A tensor `[N, width]` that is written row by row in place, so that no second copy exists. */
const tensorBuilder = (engine: NativeBackend, rows: number, width: number) => {
  const shape = tf.tensor1d([rows, width], 'int32')
  const zero = tf.scalar(0)
  // `Fill` touches the memory pages on all cores
  let [whole] = engine.run('Fill', [float32, attr.type('index_type', 'int32')], engine.handles([shape, zero]))
  tf.dispose([shape, zero])
  const write = (from: number, to: number, values: TensorHandle): void => {
    const indices = tf.range(from, to, 1, 'int32')
    const value = engine.tensor(values).reshape([to - from, width])
    const [next] = engine.run('InplaceUpdate', [float32], [whole!.id, ...engine.handles([indices, value])])
    engine.release(whole!)
    whole = next
  }
  return { write, done: () => engine.tensor(whole!), drop: () => engine.release(whole!) }
}

const uploadNative = async (engine: NativeBackend, chunks: Chunks, dtype: StoredDtype, shape: readonly number[]) => {
  const [width, size] = [shape.at(-1) ?? 1, sizeOf(shape)]
  let whole: ReturnType<typeof tensorBuilder> | undefined
  let at = 0
  try {
    for await (const chunk of chunks) {
      const count = chunk.byteLength / dtypeBytes[dtype]
      const handle = toHandle(engine, chunk, dtype)
      if (count === size) return tf.tidy(() => engine.tensor(handle).reshape([...shape]))
      whole ??= tensorBuilder(engine, size / width, width)
      const [rows, { write }] = [count / width, whole]
      tf.tidy(() => write(at, at + rows, handle))
      at += rows
    }
  } catch (error) {
    whole?.drop()
    throw error
  }
  return whole ? tf.tidy(() => whole.done().reshape([...shape])) : tf.zeros([...shape])
}

/** Quantizes a chunk of whole rows of `columns` weights: packed rows `[rows, packed]`. */
export const quantizeChunk = async (
  chunk: Uint8Array,
  dtype: StoredDtype,
  columns: number,
  format: QuantizationFormat
): Promise<tf.Tensor2D> => {
  const once = async function* () {
    yield chunk
  }
  const rows = await uploadChunks(once(), dtype, [chunk.byteLength / dtypeBytes[dtype] / columns, columns])
  try {
    return formatOf(quantize(format, rows as tf.Tensor2D)).tensor
  } finally {
    rows.dispose()
  }
}

/** A quantized weight from stored bytes; every chunk is quantized as it arrives. Bytes in the format itself are taken as they are. */
export const uploadQuantized = async (
  chunks: Chunks,
  dtype: StoredDtype,
  [rows, columns]: readonly [number, number],
  format: QuantizationFormat
): Promise<QuantizedWeight> => {
  if (isHalfFormat(format) && halfDtypes[format] === dtype && columns % 2 === 0)
    return uploadPackedRows(chunks, [rows, columns / 2], format)
  const parts: tf.Tensor2D[] = []
  try {
    for await (const chunk of chunks) parts.push(await quantizeChunk(chunk, dtype, columns, format))
    const all =
      parts.length === 1 ? parts[0]!.clone() : tf.tidy(() => (rows > 0 ? tf.concat2d(parts, 0) : tf.zeros([0, 0], 'int32')))
    return { [format]: all } as unknown as QuantizedWeight
  } finally {
    tf.dispose(parts)
  }
}

/** A quantized weight from stored packed rows `[rows, packed]`, in chunks of whole rows. */
export const uploadPackedRows = async (
  chunks: Chunks,
  shape: readonly [number, number],
  format: QuantizationFormat
): Promise<QuantizedWeight> => {
  const packed = new Int32Array(sizeOf(shape))
  const bytes = new Uint8Array(packed.buffer)
  let at = 0
  for await (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.byteLength
  }
  return { [format]: tf.tensor2d(packed, shape as [number, number], 'int32') } as unknown as QuantizedWeight
}

/**
 * A float32 tensor from stored bytes in chunks of whole rows (of the last axis). bf16 and f16 widen exactly. On the native engine,
 * memory holds the tensor and one chunk only.
 */
export const uploadChunks = async (chunks: Chunks, dtype: StoredDtype, shape: readonly number[]): Promise<tf.Tensor> => {
  const engine = tf.getBackend() === 'tensorflow' ? nativeBackend() : undefined
  if (engine) return uploadNative(engine, chunks, dtype, shape)
  const values = new Float32Array(sizeOf(shape))
  let at = 0
  for await (const chunk of chunks) {
    values.set(toFloat32(chunk, dtype), at)
    at += chunk.byteLength / dtypeBytes[dtype]
  }
  return tf.tensor(values, [...shape], 'float32')
}

/** Types that the engine's kernel can read. */
const kernelDtypes: ReadonlySet<StoredDtype> = new Set<StoredDtype>(['F32', 'BF16', 'F16'])

/**
 * A tensor from the bytes of an open file at `offset`, float32 or quantized, read and converted on all cores with a few pages of memory
 * beyond the tensor; `undefined` if the engine has no kernel for this. `file` is a file descriptor. Throws if the file ends first.
 */
export const uploadRange = (
  file: number,
  offset: number,
  dtype: StoredDtype,
  shape: readonly number[],
  format?: QuantizationFormat
): tf.Tensor | QuantizedWeight | undefined => {
  if (!kernelDtypes.has(dtype) || format === 'f16' || !tf.getKernel('ReadTensor', tf.getBackend())) return undefined
  const range = { file, offset, dtype }
  if (!format) return tf.tidy(() => runKernel<tf.Tensor>('ReadTensor', {}, { ...range, size: sizeOf(shape) }).reshape([...shape]))
  const [rows, columns] = shape
  return {
    [format]: runKernel<tf.Tensor>('ReadQuantized', {}, { ...range, rows, columns, format })
  } as unknown as QuantizedWeight
}

/** The same for stored packed rows, `[rows, packed]`. */
export const uploadPackedRange = (
  file: number,
  offset: number,
  [rows, columns]: readonly [number, number],
  format: QuantizationFormat
): QuantizedWeight | undefined =>
  tf.getKernel('ReadQuantized', tf.getBackend())
    ? ({
        [format]: runKernel<tf.Tensor>('ReadQuantized', {}, { file, offset, dtype: 'packed', rows, columns, format })
      } as unknown as QuantizedWeight)
    : undefined
