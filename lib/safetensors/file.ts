import { type FileHandle, open, stat } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { toFloat32 } from '../dtype.js'
import { InternVLError, type Issues, issue } from '../error.js'
import { type Header, headerLength, parseHeader, type TensorEntry } from './header.js'

/** Stored tensors, opened: headers are in memory, data is read by range. Close it when done. */
export interface TensorFiles extends Header {
  /** The files that are open, by path. */
  readonly handles: ReadonlyMap<string, FileHandle>
  /**
   * Bytes `[begin, end)` of a tensor, by default all, in `into`, by default memory of their own. Throws an `InternVLError`
   * when the file shrank meanwhile.
   */
  readonly readBytes: (entry: TensorEntry, begin?: number, end?: number, into?: Uint8Array) => Promise<Uint8Array>
  /** A tensor as float32, in its stored order. */
  readonly readFloat32: (entry: TensorEntry) => Promise<Float32Array>
  readonly close: () => Promise<void>
}

/** One read of 2 GiB or more fails. */
const maxReadBytes = 2 ** 30

const failed = (tag: string, message: string, fields: Readonly<Record<string, unknown>>) =>
  E.left<Issues>([issue(tag, message, fields)])

const unreadable = (file: string, error: unknown) => {
  const { code, message } = error as NodeJS.ErrnoException
  return code === 'ENOENT'
    ? failed('FileMissing', `${file}: no such file`, { file })
    : failed('FileUnreadable', `${file}: it cannot be read (${message})`, { file })
}

/** Fills `target` from `position` in the file; false when the file ends before. */
const fill = async (handle: FileHandle, target: Uint8Array, position: number): Promise<boolean> => {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await handle.read(target, done, Math.min(maxReadBytes, target.byteLength - done), position + done)
    if (bytesRead === 0) return false
    done += bytesRead
  }
  return true
}

const readHeader = async (file: string, handle: FileHandle, fileBytes: number): Promise<E.Either<Issues, Header>> => {
  const prefix = new Uint8Array(Math.min(8, fileBytes))
  const cut = () => failed('FileCutShort', `${file}: it ended within its header`, { file })
  if (!(await fill(handle, prefix, 0))) return cut()
  const length = headerLength(file, prefix, fileBytes)
  if (E.isLeft(length)) return length
  const header = new Uint8Array(length.right)
  return (await fill(handle, header, 8)) ? parseHeader(file, header, fileBytes) : cut()
}

/** The tensors of a header, read through the files that it names. */
export const filesOf = (header: Header, handles: ReadonlyMap<string, FileHandle>): TensorFiles => {
  const readBytes: TensorFiles['readBytes'] = async (entry, begin = 0, end = entry.bytes, into) => {
    const handle = handles.get(entry.file)
    if (!handle) throw new RangeError(`readBytes: ${entry.key} is of ${entry.file}, which is not open here`)
    if (begin < 0 || begin > end || end > entry.bytes)
      throw new RangeError(`readBytes: [${begin}, ${end}) is not within the ${entry.bytes} bytes of ${entry.key}`)
    if (into && into.byteLength !== end - begin)
      throw new RangeError(`readBytes: ${end - begin} bytes do not fill ${into.byteLength}`)
    const bytes = into ?? new Uint8Array(end - begin)
    if (await fill(handle, bytes, entry.offset + begin)) return bytes
    const { file, key } = entry
    throw new InternVLError([
      issue('FileCutShort', `${file}: the file ends within tensor ${key}; it changed while open`, { file, key })
    ])
  }
  return {
    ...header,
    handles,
    readBytes,
    readFloat32: async (entry) => toFloat32(await readBytes(entry), entry.dtype),
    close: async () => void (await Promise.all([...handles.values()].map((handle) => handle.close())))
  }
}

/**
 * Opens one safetensors file, reading its header alone.
 * Errors: `FileMissing`, `FileUnreadable`, and those of `headerLength` and `parseHeader`.
 */
export const openSafetensors =
  (file: string): TaskEither<Issues, TensorFiles> =>
  async () => {
    let handle: FileHandle | undefined
    try {
      const { size, ...kind } = await stat(file).then((s) => ({ size: s.size, isFile: s.isFile() }))
      if (!kind.isFile) return failed('FileUnreadable', `${file}: it is not a file`, { file })
      handle = await open(file, 'r')
      const header = await readHeader(file, handle, size)
      if (E.isLeft(header)) await handle.close()
      return E.isLeft(header) ? header : E.right(filesOf(header.right, new Map([[file, handle]])))
    } catch (error) {
      await handle?.close()
      return unreadable(file, error)
    }
  }
