import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { dtypeBytes, type StoredDtype } from '../dtype.js'
import { sizeOf } from '../shape.js'
import { indexFile, wholeFile } from './read.js'

/** A tensor to be written: its data is asked for when its turn comes, whole or in pieces, and may be dropped after. */
export interface TensorSource {
  readonly key: string
  readonly dtype: StoredDtype
  readonly shape: readonly number[]
  readonly bytes: () => Uint8Array | Promise<Uint8Array> | AsyncIterable<Uint8Array>
}

/** Length of its data, in bytes. */
export const bytesOf = ({ dtype, shape }: TensorSource): number => sizeOf(shape) * dtypeBytes[dtype]

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

/** `model-00001-of-00003.safetensors`; with a `mark` where that name is taken. `model.safetensors` where there is one. */
const shardName = (i: number, n: number, mark: string): string =>
  n === 1 ? wholeFile : `model-${`${i + 1}`.padStart(5, '0')}-of-${`${n}`.padStart(5, '0')}${mark}.safetensors`

/** Names of the shards, none of which is in the folder: the index that is there keeps the shards that it names till the end. */
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

/** Weights that the new ones replace, and temporary files of a save that was killed. */
const isStale = (name: string, kept: readonly string[]): boolean => {
  if (kept.includes(name)) return false
  if (name === wholeFile || name === indexFile || /^model-\d{5}-of-\d{5}(-\d+)?\.safetensors$/.test(name)) return true
  const [, pid] = /^\..+\.(\d+)\.tmp$/.exec(name) ?? []
  return pid !== undefined && !isAlive(Number(pid))
}

/** `model.safetensors` first, which is read before an index: without it the new index counts. */
export const removeStale = async (folder: string, kept: readonly string[]): Promise<void> => {
  const stale = (await readdir(folder))
    .filter((name) => isStale(name, kept))
    .sort((a, b) => +(b === wholeFile) - +(a === wholeFile))
  for (const name of stale) await rm(join(folder, name), { force: true })
}

/** The index: which shard holds each tensor. */
export const indexJson = (shards: ReadonlyArray<readonly TensorSource[]>, names: readonly string[]): string => {
  const all = shards.flat()
  const [total_parameters, total_size] = [
    all.reduce((n, { shape }) => n + sizeOf(shape), 0),
    all.reduce((n, t) => n + bytesOf(t), 0)
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

/** `5GB`, `500 MB`, `2GiB` or a number, in bytes; undefined when it is no size. Source: `max_shard_size` (transformers 5.23). */
export const parseSize = (text: string): number | undefined => {
  const [, number = '', unit = 'B'] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text) ?? []
  const bytes = Math.floor(Number(number || Number.NaN) * (units[unit.toUpperCase() || 'B'] ?? Number.NaN))
  return bytes > 0 ? bytes : undefined
}
