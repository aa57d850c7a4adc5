import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { dtypeBytes } from '../dtype.js'
import { InternVLError, type Issues, issue } from '../error.js'
import { indexFile } from './read.js'
import { indexJson, intoShards, removeStale, shardNames, type TensorSource, tensorBytes } from './shards.js'

export { intoShards, parseSize, type TensorSource } from './shards.js'

/** Small files of a checkpoint, such as config.json, by name. */
export type SidecarFiles = ReadonlyMap<string, string | Uint8Array>

type Metadata = Readonly<Record<string, string>>

/** Metadata that Transformers writes, and requires when it reads. */
const torchFormat: Metadata = { format: 'pt' }

const metadataKey = '__metadata__'

/** Wider types first, so that every tensor is aligned to its element size. Source: the format's reference implementation. */
const byWidth = (tensors: readonly TensorSource[]): readonly TensorSource[] =>
  [...tensors].sort((a, b) => dtypeBytes[b.dtype] - dtypeBytes[a.dtype])

/** Length, JSON and padding spaces: a multiple of 8 bytes, so that the data is aligned. */
const headerBytes = (tensors: readonly TensorSource[], metadata: Metadata): Uint8Array => {
  let end = 0
  const described = tensors.map((tensor) => {
    const begin = end
    end += tensorBytes(tensor)
    return [tensor.key, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [begin, end] }] as const
  })
  const keys = new Set([metadataKey, ...described.map(([key]) => key)])
  if (keys.size <= tensors.length) throw new RangeError(`writeSafetensors: a key occurs twice, or is ${metadataKey}`)
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries([[metadataKey, metadata], ...described])))
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20)
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true)
  header.set(json, 8)
  return header
}

/** Writes all bytes: one call writes at most 2 GiB, and may write less than requested. */
const append = async (handle: FileHandle, bytes: Uint8Array): Promise<void> => {
  for (let done = 0; done < bytes.byteLength; )
    done += (await handle.write(bytes, done, Math.min(2 ** 30, bytes.byteLength - done))).bytesWritten
}

const appendTensor = async (handle: FileHandle, tensor: TensorSource): Promise<void> => {
  const data = tensor.bytes()
  let written = 0
  for await (const piece of Symbol.asyncIterator in data ? data : [await data]) {
    await append(handle, piece)
    written += piece.byteLength
  }
  if (written !== tensorBytes(tensor))
    throw new RangeError(`writeSafetensors: ${tensor.key} gave ${written} bytes, its shape takes ${tensorBytes(tensor)}`)
}

const withFile = async (file: string, flags: 'w' | 'r+', use: (handle: FileHandle) => Promise<void>): Promise<void> => {
  const handle = await open(file, flags)
  try {
    await use(handle)
  } finally {
    await handle.close()
  }
}

const writeTo = (file: string, tensors: readonly TensorSource[], metadata: Metadata): Promise<void> => {
  const ordered = byWidth(tensors)
  const header = headerBytes(ordered, metadata)
  return withFile(file, 'w', async (handle) => {
    await append(handle, header)
    for (const tensor of ordered) await appendTensor(handle, tensor)
  })
}

/** Flushes files to disk before they are renamed, so that a final name never belongs to an incomplete file. */
const flush = (files: readonly string[]): Promise<unknown> =>
  Promise.all(files.map((file) => withFile(file, 'r+', (handle) => handle.sync())))

const temporary = (file: string) => join(dirname(file), `.${basename(file)}.${process.pid}.tmp`)

/** Runs `write` on temporary names, then renames the files. If `write` fails, the temporary files are removed and existing files stay. */
const atomically = async (files: readonly string[], write: (temporaries: readonly string[]) => Promise<void>): Promise<void> => {
  const names = files.map(temporary)
  try {
    await write(names)
    await flush(names)
    for (const [i, name] of names.entries()) await rename(name, files[i]!)
  } finally {
    await Promise.all(names.map((name) => rm(name, { force: true })))
  }
}

/** The error of a path that cannot be written, with the system's message. */
export const writeFailed = (path: string, error: Error): Issues => [
  issue('WriteFailed', `${path}: it cannot be written (${error.message})`, { file: path })
]

/** Errors of the system (no space, no permission) and of the sources become issues; other errors, of the caller, are thrown. */
const task =
  (path: string, run: () => Promise<void>): TaskEither<Issues, void> =>
  async () => {
    try {
      return E.right(await run())
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.issues)
      if (!(error instanceof Error && 'syscall' in error)) throw error
      return E.left(writeFailed(path, error))
    }
  }

/**
 * Writes one safetensors file, tensor by tensor, under a temporary name that is renamed at the end.
 * Error: `WriteFailed`. Throws a `RangeError` for a repeated key, or data whose length does not fit the shape.
 */
export const writeSafetensors = (
  file: string,
  tensors: readonly TensorSource[],
  metadata: Metadata = torchFormat
): TaskEither<Issues, void> => task(file, () => atomically([file], ([name]) => writeTo(name!, tensors, metadata)))

/**
 * Writes a safetensors file and small files to a folder, all or none: after an error the previous files are unchanged. Creates the folder
 * if needed. Errors as `writeSafetensors`.
 */
export const writeSafetensorsFolder = (
  folder: string,
  name: string,
  tensors: readonly TensorSource[],
  files: SidecarFiles
): TaskEither<Issues, void> =>
  task(folder, async () => {
    await mkdir(folder, { recursive: true })
    await atomically(
      [...files.keys(), name].map((file) => join(folder, file)),
      async (temporaries) => {
        for (const [i, content] of [...files.values()].entries())
          await withFile(temporaries[i]!, 'w', (handle) => append(handle, Buffer.from(content)))
        await writeTo(temporaries.at(-1)!, tensors, torchFormat)
      }
    )
  })

export interface WriteOptions {
  /** Maximum size of a shard in bytes; 5 GB by default. */
  readonly shardBytes?: number
  readonly metadata?: Metadata
  /** Further files of the folder, such as config.json. */
  readonly files?: SidecarFiles
}

/**
 * Writes a checkpoint folder as Transformers does: `model.safetensors`, or shards of at most `shardBytes` with their index, and
 * `files`. Creates the folder if needed. All files are first written under temporary names; one rename, of the index or of the single
 * file, replaces the old weights, which are removed last. If the process is killed at any time, the folder holds the old weights or the
 * new weights, complete. Errors as `writeSafetensors`.
 */
export const writeCheckpointTensors = (
  folder: string,
  tensors: readonly TensorSource[],
  { shardBytes = 5e9, metadata = torchFormat, files = new Map() }: WriteOptions = {}
): TaskEither<Issues, void> =>
  task(folder, async () => {
    await mkdir(folder, { recursive: true })
    const shards = intoShards(tensors, shardBytes)
    const names = shardNames(shards.length, await readdir(folder))
    const small = shards.length > 1 ? [...files, [indexFile, indexJson(shards, names)] as const] : [...files]
    // in the order of renaming: new shards, small files, and last the file that readers open first
    const [first, last] = shards.length > 1 ? [names, []] : [[], names]
    const all = [...first, ...small.map(([name]) => name), ...last]
    await atomically(
      all.map((name) => join(folder, name)),
      async (temporaries) => {
        const at = (name: string) => temporaries[all.indexOf(name)]!
        for (const [i, shard] of shards.entries()) await writeTo(at(names[i]!), shard, metadata)
        for (const [name, content] of small)
          await withFile(at(name), 'w', (handle) => append(handle, typeof content === 'string' ? Buffer.from(content) : content))
      }
    )
    await removeStale(folder, all)
  })
