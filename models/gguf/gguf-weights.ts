import type { FileHandle } from 'node:fs/promises'
import { bytesOf, dtypeBytes, toFloat32 } from '../../lib/dtype.js'
import type { TensorEntry, TensorFiles } from '../../lib/safetensors/read.js'
import { sizeOf } from '../../lib/shape.js'
import { blockFormats, dequantizeBlocks, isBlockType } from './dequantize.js'
import { type GgufFile, type GgufTensor, openGgufFile } from './gguf-file.js'
import { type GgufParameter, parametersOf } from './gguf-keys.js'

/** Weights of one row of a parameter: those that share a quantized row, except where tensors alternate. */
const columnsOf = ({ tensor, shape, alternating }: GgufParameter): number => (alternating ? shape : tensor.shape).at(-1) ?? 1

/** Weights of a tensor in float32, from the first to be read on. */
export const readWeights = async (
  file: GgufFile,
  { offset, type }: GgufTensor,
  first: number,
  count: number
): Promise<Float32Array> => {
  const { weights, bytes } = blockFormats[type]
  return dequantizeBlocks(await file.read(offset + (first / weights) * bytes, (count / weights) * bytes), type)
}

/** Rows `[from, to)` of a parameter whose last axis is the rows of several tensors in turn, one expert at a time. */
const readAlternating = async (
  { file, shape, alternating = [] }: GgufParameter,
  from: number,
  to: number
): Promise<Uint8Array> => {
  const [width, rows] = [shape.at(-1)!, shape.length === 3 ? shape[1]! : 1] // rows of the parameter for each expert
  const [n, size] = [alternating.length, (width / alternating.length) * rows]
  const out = new Float32Array((to - from) * width)
  for (let e = Math.floor(from / rows); e * rows < to; e++) {
    const values = await Promise.all(alternating.map((tensor) => readWeights(file, tensor, e * size, size)))
    for (let row = Math.max(from, e * rows); row < Math.min(to, (e + 1) * rows); row++)
      for (let i = 0; i < width; i++) out[(row - from) * width + i] = values[i % n]![Math.floor(i / n) * rows + (row - e * rows)]!
  }
  return bytesOf(out)
}

/**
 * The stored row of row `r` of a head's weights where the file interleaves the two halves of a head: row j · K / 2 + i of a head is
 * stored as row 2 i + j. Source: `LlamaModel.permute` of llama.cpp.
 */
const storedRow = (r: number, rows: number, heads: number): number => {
  if (heads === 0) return r
  const size = rows / heads
  const [head, inHead] = [Math.floor(r / size), r % size]
  return head * size + 2 * (inHead % (size / 2)) + Math.floor(inHead / (size / 2))
}

/** Whole rows `[from, to)` of a parameter: dequantized to float32, other types as they are stored. */
const readRows = async (parameter: GgufParameter, from: number, to: number): Promise<Uint8Array> => {
  const { file, tensor, firstRow, interleavedHeads } = parameter
  if (parameter.alternating) return readAlternating(parameter, from, to)
  const { weights, bytes } = blockFormats[tensor.type]
  const rowBytes = (columnsOf(parameter) / weights) * bytes
  const rows = sizeOf(parameter.shape) / columnsOf(parameter)
  const read = (first: number, count: number) => file.read(tensor.offset + (firstRow + first) * rowBytes, count * rowBytes)
  const converted = (raw: Buffer): Uint8Array => (isBlockType(tensor.type) ? bytesOf(dequantizeBlocks(raw, tensor.type)) : raw)
  if (interleavedHeads === 0) return converted(await read(from, to - from))
  const size = rows / interleavedHeads
  const [first, end] = [Math.floor(from / size) * size, Math.ceil(to / size) * size] // whole heads
  const raw = await read(first, end - first)
  const ordered = Buffer.concat(
    Array.from({ length: to - from }, (_, i) => {
      const at = (storedRow(from + i, rows, interleavedHeads) - first) * rowBytes
      return raw.subarray(at, at + rowBytes)
    })
  )
  return converted(ordered)
}

const entryOf = (parameter: GgufParameter): TensorEntry => {
  const { key, shape, tensor, file, firstRow, interleavedHeads } = parameter
  const isRead = isBlockType(tensor.type) || interleavedHeads > 0 || parameter.alternating !== undefined // by `readBytes`, not straight from the file
  const dtype = isBlockType(tensor.type) || parameter.alternating ? 'F32' : (tensor.type as 'F32' | 'F16' | 'BF16')
  const offset = isRead ? 0 : tensor.offset + firstRow * columnsOf(parameter) * dtypeBytes[dtype]
  return {
    key,
    dtype,
    shape,
    file: isRead ? `${file.path}: ${tensor.name}` : file.path,
    offset,
    bytes: sizeOf(shape) * dtypeBytes[dtype]
  }
}

/**
 * The weights of GGUF files, a decoder and a vision tower with projector, as tensors of the module tree. Quantized blocks are
 * dequantized to float32 when they are read, a few rows at a time. Throws an `InternVLError` that names the file.
 */
export const openGgufWeights = async (paths: readonly string[]): Promise<TensorFiles> => {
  const files: GgufFile[] = []
  const close = async (): Promise<void> => void (await Promise.all(files.map((file) => file.close())))
  try {
    for (const path of paths) files.push(await openGgufFile(path))
  } catch (error) {
    await close()
    throw error
  }
  const parameters = new Map(files.flatMap((file) => parametersOf(file).map((parameter) => [parameter.key, parameter] as const)))
  const readBytes: TensorFiles['readBytes'] = async (entry, begin = 0, end = entry.bytes, into) => {
    const parameter = parameters.get(entry.key)!
    const rowBytes = columnsOf(parameter) * dtypeBytes[entry.dtype]
    const [from, to] = [Math.floor(begin / rowBytes), Math.ceil(end / rowBytes)]
    const rows = await readRows(parameter, from, to)
    const bytes = rows.subarray(begin - from * rowBytes, end - from * rowBytes)
    into?.set(bytes)
    return into ? into.subarray(0, bytes.byteLength) : bytes
  }
  return {
    entries: new Map([...parameters.values()].map((parameter) => [parameter.key, entryOf(parameter)])),
    metadata: {},
    handles: new Map<string, FileHandle>(files.map(({ path, handle }) => [path, handle])),
    readBytes,
    readFloat32: async (entry) => toFloat32(await readBytes(entry), entry.dtype),
    close
  }
}
