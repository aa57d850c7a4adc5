import { type FileHandle, mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { dtypeBytes, type StoredDtype } from './dtype.js'
import { type Faults, fault, InternVLError } from './fault.js'
import { indexFile, wholeFile } from './safetensors.js'
import { sizeOf } from './shape.js'

/** A tensor to be written: its data is asked for when its turn comes, and may be dropped after. */
export interface TensorSource {
  readonly key: string
  readonly dtype: StoredDtype
  readonly shape: readonly number[]
  readonly bytes: () => Uint8Array | Promise<Uint8Array>
}

type Metadata = Readonly<Record<string, string>>

/** What Transformers writes, and asks for when it reads. */
const torchFormat: Metadata = { format: 'pt' }

const metadataKey = '__metadata__'

const bytesOf = ({ dtype, shape }: TensorSource): number => sizeOf(shape) * dtypeBytes[dtype]

/** Wider types first, so that every tensor is aligned to its own. Source: the format's reference implementation. */
const byWidth = (tensors: readonly TensorSource[]): readonly TensorSource[] =>
  [...tensors].sort((a, b) => dtypeBytes[b.dtype] - dtypeBytes[a.dtype])

/** Length, JSON, spaces: a multiple of 8 bytes, so that the data is aligned. */
const headerBytes = (tensors: readonly TensorSource[], metadata: Metadata): Uint8Array => {
  let end = 0
  const described = tensors.map((tensor) => {
    const begin = end
    end += bytesOf(tensor)
    return [tensor.key, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [begin, end] }] as const
  })
  const keys = new Set([metadataKey, ...described.map(([key]) => key)])
  if (keys.size <= tensors.length) throw new RangeError(`writeSafetensors: a key is given twice, or is ${metadataKey}`)
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries([[metadataKey, metadata], ...described])))
  const header = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20)
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true)
  header.set(json, 8)
  return header
}

/** One write takes no more than 2 GiB, and may take less than it was given. */
const append = async (handle: FileHandle, bytes: Uint8Array): Promise<void> => {
  for (let done = 0; done < bytes.byteLength; )
    done += (await handle.write(bytes, done, Math.min(2 ** 30, bytes.byteLength - done))).bytesWritten
}

const writeTo = async (file: string, tensors: readonly TensorSource[], metadata: Metadata): Promise<void> => {
  const ordered = byWidth(tensors)
  const header = headerBytes(ordered, metadata)
  const handle = await open(file, 'w')
  try {
    await append(handle, header)
    for (const tensor of ordered) {
      const bytes = await tensor.bytes()
      if (bytes.byteLength !== bytesOf(tensor))
        throw new RangeError(`writeSafetensors: ${tensor.key} gave ${bytes.byteLength} bytes, its shape takes ${bytesOf(tensor)}`)
      await append(handle, bytes)
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const temporary = (file: string) => join(dirname(file), `.${basename(file)}.${process.pid}.tmp`)

/** Runs `write` on temporary names, then renames them all; when it fails nothing is left behind, and what was there stays. */
const atomically = async (files: readonly string[], write: (temporaries: readonly string[]) => Promise<void>): Promise<void> => {
  const names = files.map(temporary)
  try {
    await write(names)
    for (const [i, name] of names.entries()) await rename(name, files[i]!)
  } finally {
    await Promise.all(names.map((name) => rm(name, { force: true })))
  }
}

/** Failures of the system (no space, no permission) and of the sources are faults; others are the caller's, and thrown. */
const task =
  (path: string, run: () => Promise<void>): TaskEither<Faults, void> =>
  async () => {
    try {
      return E.right(await run())
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.faults)
      if (!(error instanceof Error && 'syscall' in error)) throw error
      return E.left([fault('WriteFailed', `${path}: it cannot be written (${error.message})`, { file: path })])
    }
  }

/**
 * Writes one safetensors file, tensor by tensor, under a temporary name that is renamed when all is there.
 * Fault: `WriteFailed`. Throws a `RangeError` for a key given twice, or data that is not as long as its shape says.
 */
export const writeSafetensors = (
  file: string,
  tensors: readonly TensorSource[],
  metadata: Metadata = torchFormat
): TaskEither<Faults, void> => task(file, () => atomically([file], ([name]) => writeTo(name!, tensors, metadata)))

/** Fills shards in order; a tensor that is larger than a shard has one of its own. */
export const intoShards = (tensors: readonly TensorSource[], shardBytes: number): ReadonlyArray<readonly TensorSource[]> => {
  const shards: TensorSource[][] = []
  let room = 0
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor)
    if (bytes > room || shards.length === 0) {
      shards.push([])
      room = shardBytes
    }
    shards.at(-1)!.push(tensor)
    room -= bytes
  }
  return shards.length ? shards : [[]]
}

/** `model-00001-of-00003.safetensors`, or `model.safetensors` where there is one. */
const shardName = (i: number, n: number): string =>
  n === 1 ? wholeFile : `model-${`${i + 1}`.padStart(5, '0')}-of-${`${n}`.padStart(5, '0')}.safetensors`

/** Weights of an earlier save that the new ones do not replace; Transformers would read `model.safetensors` before an index. */
const removeStale = async (folder: string, kept: readonly string[]): Promise<void> => {
  const isWeights = (name: string) => name === wholeFile || name === indexFile || /^model-\d{5}-of-\d{5}\.safetensors$/.test(name)
  const stale = (await readdir(folder)).filter((name) => isWeights(name) && !kept.includes(name))
  await Promise.all(stale.map((name) => rm(join(folder, name))))
}

const indexJson = (shards: ReadonlyArray<readonly TensorSource[]>, names: readonly string[]): string => {
  const all = shards.flat()
  const [total_parameters, total_size] = [
    all.reduce((n, { shape }) => n + sizeOf(shape), 0),
    all.reduce((n, t) => n + bytesOf(t), 0)
  ]
  const weight_map = Object.fromEntries(shards.flatMap((shard, i) => shard.map(({ key }) => [key, names[i]!] as const)).sort())
  return `${JSON.stringify({ metadata: { total_parameters, total_size }, weight_map }, null, 2)}\n`
}

/**
 * Writes the weights of a checkpoint folder as Transformers does: `model.safetensors`, or shards of at most `shardBytes` with
 * their index. The folder is made where it is not there; weights of an earlier save that are not
 * replaced are removed last. Faults and errors: as `writeSafetensors`.
 */
export const writeCheckpointTensors = (
  folder: string,
  tensors: readonly TensorSource[],
  { shardBytes = 5e9, metadata = torchFormat }: { readonly shardBytes?: number; readonly metadata?: Metadata } = {}
): TaskEither<Faults, void> =>
  task(folder, async () => {
    await mkdir(folder, { recursive: true })
    const shards = intoShards(tensors, shardBytes)
    const names = shards.map((_, i) => shardName(i, shards.length))
    const all = [...names, ...(shards.length > 1 ? [indexFile] : [])]
    await atomically(
      all.map((name) => join(folder, name)),
      async (temporaries) => {
        for (const [i, shard] of shards.entries()) await writeTo(temporaries[i]!, shard, metadata)
        if (shards.length > 1) await writeFile(temporaries.at(-1)!, indexJson(shards, names))
      }
    )
    await removeStale(folder, all)
  })

const units: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40
}

/** `5GB`, `500 MB`, `2GiB` or a number, in bytes; undefined when it is no size. Source: `max_shard_size` (transformers 5.23). */
export const parseSize = (text: string): number | undefined => {
  const [, number = '', unit = 'B'] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text) ?? []
  const bytes = Math.floor(Number(number || Number.NaN) * (units[unit.toUpperCase() || 'B'] ?? Number.NaN))
  return bytes > 0 ? bytes : undefined
}
