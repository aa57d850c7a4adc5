import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { orThrow } from '../../lib/error.js'
import { openSafetensors } from '../../lib/safetensors/read.js'
import { sizeOf } from '../../lib/shape.js'

/** A tensor of a reference file, in row-major order. */
export interface Numbers {
  readonly shape: readonly number[]
  readonly values: Float32Array
}

/** Every tensor of a safetensors file, as float32. */
export const readNumbers = async (file: string): Promise<ReadonlyMap<string, Numbers>> => {
  const files = await orThrow(openSafetensors(file))
  try {
    const entries = [...files.entries.values()]
    const read = entries.map(async (e) => [e.key, { shape: e.shape, values: await files.readFloat32(e) }] as const)
    return new Map(await Promise.all(read))
  } finally {
    await files.close()
  }
}

/** Row `i` along the first axis. */
export const rowOf = ({ shape, values }: Numbers, i: number): number[] => {
  const size = sizeOf(shape.slice(1))
  return Array.from(values.subarray(i * size, (i + 1) * size))
}

export const readJson = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'))

/** A reference case: a folder with a checkpoint and inputs, or with expected values of the processor. */
export interface Case {
  readonly name: string
  readonly dir: string
}

const isCase = (dir: string): boolean =>
  existsSync(join(dir, 'processor.json')) || existsSync(join(dir, 'checkpoint')) || existsSync(join(dir, 'checkpoint-original'))

const foldersIn = (dir: string): readonly string[] =>
  readdirSync(dir)
    .map((name) => join(dir, name))
    .filter((path) => statSync(path).isDirectory())
    .sort()

/** The folder itself if it is a case, else the cases directly inside. Throws a `RangeError` if there are none. */
export const findCases = (dir: string): readonly Case[] => {
  if (!existsSync(dir)) throw new RangeError(`${dir}: no such folder`)
  const found = isCase(dir)
    ? [resolve(dir)]
    : foldersIn(dir)
        .filter(isCase)
        .map((path) => resolve(path))
  if (found.length === 0) throw new RangeError(`${dir}: neither a case (checkpoint/, processor.json) nor a folder of cases`)
  return found.map((path) => ({ name: basename(path), dir: path }))
}

/** The folder `images` in the case's folder or the nearest parent that has one. */
export const imagesFor = (dir: string): string => {
  const imagesFolder = join(dir, 'images')
  if (existsSync(imagesFolder)) return imagesFolder
  return dirname(dir) === dir ? 'images' : imagesFor(dirname(dir))
}
