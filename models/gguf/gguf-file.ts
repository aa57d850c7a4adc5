import type { FileHandle } from 'node:fs/promises'
import { open } from 'node:fs/promises'
import { InternVLError, issue } from '../../lib/error.js'
import { blockFormats, type GgufType, ggufTypes } from './dequantize.js'

/** A value of the metadata; 64-bit integers become numbers. */
export type GgufValue = string | number | boolean | readonly GgufValue[]

/** A tensor of a GGUF file. */
export interface GgufTensor {
  readonly name: string
  readonly type: GgufType
  /** Shape in the order of PyTorch, rows first. */
  readonly shape: readonly number[]
  /** Position of the first byte in the file. */
  readonly offset: number
}

/** An open GGUF file: its metadata and the positions of its tensors. `close` after use. */
export interface GgufFile {
  readonly path: string
  readonly metadata: ReadonlyMap<string, GgufValue>
  readonly tensors: ReadonlyMap<string, GgufTensor>
  readonly handle: FileHandle
  readonly read: (offset: number, bytes: number) => Promise<Buffer>
  readonly close: () => Promise<void>
}

const MAX_HEADER = 512 * 2 ** 20 // vocabularies of released models take up to 20 MB
const MAX_DEPTH = 4

/** Reads the bytes of a header one after another. Throws a `RangeError` beyond the end. */
const headerReader = (bytes: Buffer) => {
  let at = 0
  const take = (n: number): number => {
    if (at + n > bytes.length) throw new RangeError('the header is cut short')
    at += n
    return at - n
  }
  const u32 = () => bytes.readUInt32LE(take(4))
  const u64 = () => Number(bytes.readBigUInt64LE(take(8)))
  const text = (): string => {
    const length = u64()
    const start = take(length)
    return bytes.toString('utf8', start, start + length)
  }
  const list = (depth: number): readonly GgufValue[] => {
    if (depth > MAX_DEPTH) throw new RangeError('lists are nested too deeply')
    const [type, length] = [u32(), u64()]
    if (length > bytes.length) throw new RangeError('a list is longer than the file')
    return Array.from({ length }, () => value(type, depth + 1))
  }
  // Source: `gguf_metadata_value_type` of the GGUF specification
  const readers: readonly (() => GgufValue)[] = [
    () => bytes.readUInt8(take(1)),
    () => bytes.readInt8(take(1)),
    () => bytes.readUInt16LE(take(2)),
    () => bytes.readInt16LE(take(2)),
    u32,
    () => bytes.readInt32LE(take(4)),
    () => bytes.readFloatLE(take(4)),
    () => bytes.readUInt8(take(1)) !== 0,
    text
  ]
  const value = (type: number, depth = 0): GgufValue => {
    if (type === 9) return list(depth)
    if (type === 10) return u64()
    if (type === 11) return Number(bytes.readBigInt64LE(take(8)))
    if (type === 12) return bytes.readDoubleLE(take(8))
    const read = readers[type]
    if (!read) throw new RangeError(`a value has the unknown type ${type}`)
    return read()
  }
  return { u32, u64, text, value, position: () => at }
}

const parse = (bytes: Buffer): Pick<GgufFile, 'metadata' | 'tensors'> => {
  const header = headerReader(bytes)
  if (bytes.toString('latin1', 0, 4) !== 'GGUF') throw new RangeError('it is not a GGUF file')
  header.u32()
  const version = header.u32()
  if (version !== 2 && version !== 3) throw new RangeError(`it has version ${version}; versions 2 and 3 are read`)
  const [tensorCount, valueCount] = [header.u64(), header.u64()]
  if (tensorCount > 2 ** 20 || valueCount > 2 ** 20) throw new RangeError('its counts are not those of a model')
  const metadata = new Map<string, GgufValue>()
  for (let i = 0; i < valueCount; i++) {
    const key = header.text()
    metadata.set(key, header.value(header.u32()))
  }
  const infos = Array.from({ length: tensorCount }, () => {
    const name = header.text()
    const shape = Array.from({ length: header.u32() }, header.u64).reverse()
    return { name, shape, type: header.u32(), offset: header.u64() }
  })
  const alignment = Number(metadata.get('general.alignment') ?? 32)
  const start = Math.ceil(header.position() / alignment) * alignment
  const tensors = infos.map(({ type, ...info }): GgufTensor => {
    const known = ggufTypes[type]
    if (!known) throw new RangeError(`tensor ${info.name} has type ${type}; read are ${Object.values(ggufTypes).join(', ')}`)
    if ((info.shape.at(-1) ?? 1) % blockFormats[known].weights !== 0)
      throw new RangeError(`tensor ${info.name}: [${info.shape}] is not a whole number of ${known} blocks`)
    return { ...info, type: known, offset: start + info.offset }
  })
  return { metadata, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])) }
}

const failed = (path: string, why: string) => new InternVLError([issue('Gguf', `${path}: ${why}`, { file: path })])

/** The header of an open file. It has no stated length, so that longer and longer beginnings are parsed. */
const readHeader = async (handle: FileHandle): Promise<Pick<GgufFile, 'metadata' | 'tensors'>> => {
  const { size } = await handle.stat()
  for (let length = Math.min(size, 2 ** 20); ; length = Math.min(size, length * 4)) {
    const bytes = Buffer.alloc(length)
    await handle.read(bytes, 0, length, 0)
    try {
      return parse(bytes)
    } catch (error) {
      const isShort = error instanceof RangeError && error.message === 'the header is cut short'
      if (!isShort || length === size || length >= MAX_HEADER) throw error
    }
  }
}

/** The first tensor that does not end within the file. */
const beyondEnd = (tensors: GgufFile['tensors'], size: number): GgufTensor | undefined =>
  [...tensors.values()].find((tensor) => tensor.offset + bytesOfTensor(tensor) > size)

/** Bytes of a tensor in its file. */
const bytesOfTensor = ({ shape, type }: GgufTensor): number => {
  const { weights, bytes } = blockFormats[type]
  return (shape.reduce((a, b) => a * b, 1) / weights) * bytes
}

/**
 * Opens a GGUF file, version 2 or 3. Throws an `InternVLError` that names the file: not a GGUF file, cut short, an unknown type.
 * Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export const openGgufFile = async (path: string): Promise<GgufFile> => {
  const handle = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw failed(path, error.code === 'ENOENT' ? 'no such file' : `it cannot be read (${error.message})`)
  })
  try {
    const header = await readHeader(handle)
    const missing = beyondEnd(header.tensors, (await handle.stat()).size)
    if (missing) throw new RangeError(`the file is cut short, without all of ${missing.name}; download or copy it again`)
    const read = async (offset: number, bytes: number): Promise<Buffer> => {
      const into = Buffer.allocUnsafe(bytes)
      const { bytesRead } = await handle.read(into, 0, bytes, offset)
      if (bytesRead !== bytes) throw failed(path, 'the file ended while it was read; did it change since it was opened?')
      return into
    }
    return { path, handle, ...header, read, close: () => handle.close() }
  } catch (error) {
    await handle.close()
    throw error instanceof InternVLError ? error : failed(path, (error as Error).message)
  }
}
