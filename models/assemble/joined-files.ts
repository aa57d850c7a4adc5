import type { FileHandle } from 'node:fs/promises'
import { dtypeBytes, type FloatDtype, fromFloat32, toFloat32 } from '../../lib/dtype.js'
import type { TensorEntry, TensorFiles } from '../../lib/safetensors/read.js'
import { sizeOf } from '../../lib/shape.js'
import type { Planned } from '../checkpoint/fuse.js'

const handles: ReadonlyMap<string, FileHandle> = new Map()

/** A tensor that is computed, not stored. */
export interface ComputedTensor {
  readonly shape: readonly number[]
  readonly values: Float32Array
  /** Type of its bytes; F32 unless given. */
  readonly dtype?: FloatDtype
}

/** Computed tensors as if they were stored in a file. */
export const computedFiles = (tensors: ReadonlyMap<string, ComputedTensor>): TensorFiles => {
  const entryOf = (key: string, { shape, dtype = 'F32' }: ComputedTensor): TensorEntry => ({
    ...{ key, dtype, shape, file: `${key}, computed`, offset: 0 },
    bytes: sizeOf(shape) * dtypeBytes[dtype]
  })
  const readBytes: TensorFiles['readBytes'] = async ({ key, bytes }, begin = 0, end = bytes, into) => {
    const { values, dtype = 'F32' } = tensors.get(key)!
    const range = fromFloat32(values, dtype).subarray(begin, end)
    into?.set(range)
    return into ?? range
  }
  return {
    entries: new Map([...tensors].map(([key, tensor]) => [key, entryOf(key, tensor)])),
    metadata: {},
    handles,
    readBytes,
    readFloat32: async ({ key }) => tensors.get(key)!.values,
    close: async () => {}
  }
}

/** The key of a part's tensor in joined files. */
export const joinedKey = (part: string, key: string): string => `${part}:${key}`

/** Planned tensors of a part, with their sources in joined files. */
export const inJoined = (part: string, plan: readonly Planned[]): readonly Planned[] =>
  plan.map((tensor) => ({
    ...tensor,
    parts: tensor.parts.map((range) => ({ ...range, source: joinedKey(part, range.source) }))
  }))

/** The files of several parts as one, under the keys of `joinedKey`. Closing closes all. */
export const joinFiles = (parts: Readonly<Record<string, TensorFiles>>): TensorFiles => {
  const owners = new Map(
    Object.entries(parts).flatMap(([part, files]) =>
      [...files.entries.values()].map((entry) => [joinedKey(part, entry.key), { files, entry }] as const)
    )
  )
  const readBytes: TensorFiles['readBytes'] = ({ key, bytes }, begin = 0, end = bytes, into) => {
    const { files, entry } = owners.get(key)!
    return files.readBytes(entry, begin, end, into)
  }
  return {
    entries: new Map([...owners].map(([key, { entry }]) => [key, { ...entry, key }])),
    metadata: {},
    handles,
    readBytes,
    readFloat32: async (entry) => toFloat32(await readBytes(entry), entry.dtype),
    close: async () => void (await Promise.all(Object.values(parts).map((files) => files.close())))
  }
}
