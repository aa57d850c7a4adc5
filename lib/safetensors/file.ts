import { type FileHandle, open, stat } from 'node:fs/promises'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { toFloat32 } from '../dtype.js'
import { InternVLError, type Issues, invalid, issue } from '../error.js'
import { type Header, headerLength, parseHeader, type TensorEntry } from './header.js'

/** Open safetensors files: headers are in memory, data is read by range. The caller closes the files. */
export interface TensorFiles extends Header {
  /** Open files by path. */
  readonly handles: ReadonlyMap<string, FileHandle>
  /**
   * Bytes `[begin, end)` of a tensor, all by default, read into `into` or into a new array. Throws an `InternVLError` if the file has
   * shrunk since it was opened.
   */
  readonly readBytes: (entry: TensorEntry, begin?: number, end?: number, into?: Uint8Array) => Promise<Uint8Array>
  /** A tensor as float32, in its stored order. */
  readonly readFloat32: (entry: TensorEntry) => Promise<Float32Array>
  readonly close: () => Promise<void>
}

/** One read of 2 GiB or more fails. */
const maxReadBytes = 2 ** 30

const unreadable =
  (file: string) =>
  (error: unknown): Issues => {
    const { code, message } = error as NodeJS.ErrnoException
    return code === 'ENOENT'
      ? [issue('FileMissing', `${file}: no such file`, { file })]
      : [issue('FileUnreadable', `${file}: it cannot be read (${message})`, { file })]
  }

/** Fills `target` from `position` in the file; false if the file ends first. */
const fill = async (handle: FileHandle, target: Uint8Array, position: number): Promise<boolean> => {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await handle.read(target, done, Math.min(maxReadBytes, target.byteLength - done), position + done)
    if (bytesRead === 0) return false
    done += bytesRead
  }
  return true
}

/** Reads `length` bytes of the header from `position`. */
const readExactly =
  (file: string, handle: FileHandle, position: number) =>
  (length: number): TE.TaskEither<Issues, Uint8Array> =>
  async () => {
    const bytes = new Uint8Array(length)
    const whole = await fill(handle, bytes, position)
    return whole ? E.right(bytes) : invalid('FileCutShort', `${file}: it ended within its header`, { file })
  }

const readHeader = (file: string, handle: FileHandle, fileBytes: number): TE.TaskEither<Issues, Header> =>
  pipe(
    Math.min(8, fileBytes),
    readExactly(file, handle, 0),
    TE.flatMapEither((prefix) => headerLength(file, prefix, fileBytes)),
    TE.flatMap(readExactly(file, handle, 8)),
    TE.flatMapEither((header) => parseHeader(file, header, fileBytes))
  )

/** The tensors of a header, read through the open files that the header names. */
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

/** The size of a file in bytes; an error for a folder. */
const fileSize = (file: string): TE.TaskEither<Issues, number> =>
  pipe(
    TE.tryCatch(() => stat(file), unreadable(file)),
    TE.flatMapEither((found) =>
      found.isFile() ? E.right(found.size) : invalid('FileUnreadable', `${file}: it is not a file`, { file })
    )
  )

/**
 * Opens one safetensors file and reads its header only.
 * Errors: `FileMissing`, `FileUnreadable`, and the errors of `headerLength` and `parseHeader`.
 */
export const openSafetensors = (file: string): TE.TaskEither<Issues, TensorFiles> =>
  pipe(
    fileSize(file),
    TE.bindTo('size'),
    TE.bind('handle', () => TE.tryCatch(() => open(file, 'r'), unreadable(file))),
    TE.flatMap(({ size, handle }) =>
      pipe(
        TE.tryCatch(readHeader(file, handle, size), unreadable(file)),
        TE.flatMapEither((header) => header),
        TE.map((header) => filesOf(header, new Map([[file, handle]]))),
        TE.tapError(() => TE.fromTask(() => handle.close()))
      )
    )
  )
