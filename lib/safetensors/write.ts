import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { dtypeBytes } from '../dtype.js'
import { InternVLError, type Issues, issue } from '../error.js'
import { runCommit, writeCommit } from './commit.js'
import { indexFile } from './read.js'
import { indexJson, intoShards, shardNames, type TensorSource, tensorBytes } from './shards.js'

export { intoShards, parseSize, type TensorSource } from './shards.js'

/** Small files of a checkpoint, such as config.json, by name. */
export type SidecarFiles = ReadonlyMap<string, string | Uint8Array>

type Metadata = Readonly<Record<string, string>>

/** Metadata that Transformers writes, and requires when it reads. */
const torchFormat: Metadata = { format: 'pt' }

const metadataKey = '__metadata__'

/** Bytes to which data is aligned: memory that TensorFlow takes without a copy, so that tensors can be mapped. */
const alignment = 64

/**
 * Tensors of whole multiples of 64 bytes first, which are all aligned; then wider types first, so that every tensor is aligned to its
 * element size, as in the format's reference implementation.
 */
const byAlignment = (tensors: readonly TensorSource[]): readonly TensorSource[] => {
  const isWhole = (tensor: TensorSource): number => Number(tensorBytes(tensor) % alignment === 0)
  return [...tensors].sort((a, b) => isWhole(b) - isWhole(a) || dtypeBytes[b.dtype] - dtypeBytes[a.dtype])
}

/** Length, JSON and padding spaces: a multiple of 64 bytes. */
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
  const header = new Uint8Array(Math.ceil((8 + json.length) / alignment) * alignment).fill(0x20)
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
  const ordered = byAlignment(tensors)
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

/** Runs `write` on a temporary name, then renames the file. If `write` fails, the temporary file is removed and an existing file stays. */
const atomically = async (file: string, write: (temporary: string) => Promise<void>): Promise<void> => {
  const name = temporary(file)
  try {
    await write(name)
    await flush([name])
    await rename(name, file)
  } finally {
    await rm(name, { force: true })
  }
}

/**
 * Replaces files of a folder as a whole: `write` fills temporary names, a commit marker makes the replacement certain, and renames
 * finish it. If the process is killed, the folder has its old files, or the next reader finishes the renames (see `finishCommit`).
 */
const replaceFiles = async (
  folder: string,
  names: readonly string[],
  replacesWeights: boolean,
  write: (temporaries: readonly string[]) => Promise<void>
): Promise<void> => {
  await runCommit(folder) // of an earlier process
  const temporaries = names.map((name) => temporary(join(folder, name)))
  try {
    await write(temporaries)
    await flush(temporaries)
    await writeCommit(folder, {
      files: Object.fromEntries(names.map((name, i) => [name, basename(temporaries[i]!)])),
      replacesWeights
    })
  } catch (error) {
    await Promise.all(temporaries.map((name) => rm(name, { force: true })))
    throw error
  }
  await runCommit(folder)
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
): TaskEither<Issues, void> => task(file, () => atomically(file, (name) => writeTo(name, tensors, metadata)))

/**
 * Writes a safetensors file and small files to a folder, all or none: after an error or a kill the previous files are unchanged.
 * Creates the folder if needed. Errors as `writeSafetensors`.
 */
export const writeSafetensorsFolder = (
  folder: string,
  name: string,
  tensors: readonly TensorSource[],
  files: SidecarFiles
): TaskEither<Issues, void> =>
  task(folder, async () => {
    await mkdir(folder, { recursive: true })
    await replaceFiles(folder, [...files.keys(), name], false, async (temporaries) => {
      for (const [i, content] of [...files.values()].entries())
        await withFile(temporaries[i]!, 'w', (handle) => append(handle, Buffer.from(content)))
      await writeTo(temporaries.at(-1)!, tensors, torchFormat)
    })
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
 * `files`. Creates the folder if needed. The files replace those of an earlier checkpoint as a whole: if the process is killed at any
 * time, readers of this library find the old checkpoint or the new one, complete. Errors as `writeSafetensors`.
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
    await replaceFiles(folder, all, true, async (temporaries) => {
      const at = (name: string) => temporaries[all.indexOf(name)]!
      for (const [i, shard] of shards.entries()) await writeTo(at(names[i]!), shard, metadata)
      for (const [name, content] of small)
        await withFile(at(name), 'w', (handle) => append(handle, typeof content === 'string' ? Buffer.from(content) : content))
    })
  })
