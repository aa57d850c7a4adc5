import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { dtypeBytes, type StoredDtype } from '../dtype.js'
import { sizeOf } from '../shape.js'
import { indexFile, wholeFile } from './read.js'

/** A tensor to write. `bytes` is called when the tensor is written, and returns the data whole or in chunks. */
export interface TensorSource {
  readonly key: string
  readonly dtype: StoredDtype
  readonly shape: readonly number[]
  readonly bytes: () => Uint8Array | Promise<Uint8Array> | AsyncIterable<Uint8Array>
}

/** Length of a tensor's data in bytes. */
export const tensorBytes = ({ dtype, shape }: TensorSource): number => sizeOf(shape) * dtypeBytes[dtype]

/** Distributes tensors to shards in order; a tensor larger than `shardBytes` gets a separate shard. */
export const intoShards = (tensors: readonly TensorSource[], shardBytes: number): ReadonlyArray<readonly TensorSource[]> => {
  const shards: TensorSource[][] = []
  let free = 0
  for (const tensor of tensors) {
    const bytes = tensorBytes(tensor)
    if (bytes > free || shards.length === 0) {
      shards.push([])
      free = shardBytes
    }
    shards.at(-1)!.push(tensor)
    free -= bytes
  }
  return shards.length ? shards : [[]]
}

/** `model-00001-of-00003.safetensors`; with the suffix `mark` if that name exists; `model.safetensors` for a single shard. */
const shardName = (i: number, n: number, suffix: string): string =>
  n === 1 ? wholeFile : `model-${`${i + 1}`.padStart(5, '0')}-of-${`${n}`.padStart(5, '0')}${suffix}.safetensors`

/** New names of the shards, none present in the folder: the old index stays valid until the new index replaces the old one. */
export const shardNames = (n: number, present: readonly string[]): readonly string[] => {
  const marks = ['', ...Array.from({ length: present.length + 1 }, (_, i) => `-${i + 2}`)]
  const named = marks.map((mark) => Array.from({ length: n }, (_, i) => shardName(i, n, mark)))
  return n === 1 ? named[0]! : named.find((names) => !names.some((name) => present.includes(name)))!
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Whether a file is an old weight file, or a temporary file of a killed save. */
const isStale = (name: string, keep: readonly string[]): boolean => {
  if (keep.includes(name)) return false
  if (name === wholeFile || name === indexFile || /^model-\d{5}-of-\d{5}(-\d+)?\.safetensors$/.test(name)) return true
  const [, pid] = /^\..+\.(\d+)\.tmp$/.exec(name) ?? []
  return pid !== undefined && !isAlive(Number(pid))
}

/** Removes old files; `model.safetensors` first, because readers prefer `model.safetensors` to an index. */
export const removeStale = async (folder: string, keep: readonly string[]): Promise<void> => {
  const stale = (await readdir(folder))
    .filter((name) => isStale(name, keep))
    .sort((a, b) => +(b === wholeFile) - +(a === wholeFile))
  for (const name of stale) await rm(join(folder, name), { force: true })
}

/** The JSON of the index: the shard of each tensor. */
export const indexJson = (shards: ReadonlyArray<readonly TensorSource[]>, names: readonly string[]): string => {
  const all = shards.flat()
  const [total_parameters, total_size] = [
    all.reduce((n, { shape }) => n + sizeOf(shape), 0),
    all.reduce((n, t) => n + tensorBytes(t), 0)
  ]
  const weight_map = Object.fromEntries(shards.flatMap((shard, i) => shard.map(({ key }) => [key, names[i]!] as const)).sort())
  return `${JSON.stringify({ metadata: { total_parameters, total_size }, weight_map }, null, 2)}\n`
}

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

/** `5GB`, `500 MB`, `2GiB` or a number, in bytes; `undefined` for other text. Source: `max_shard_size` (transformers 5.24). */
export const parseSize = (text: string): number | undefined => {
  const [, number = '', unit = 'B'] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text) ?? []
  const bytes = Math.floor(Number(number || Number.NaN) * (units[unit.toUpperCase() || 'B'] ?? Number.NaN))
  return bytes > 0 ? bytes : undefined
}
