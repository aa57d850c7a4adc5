import { readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, whenValid } from '../error.js'
import { filesOf, openSafetensors, type TensorFiles } from './file.js'
import type { TensorEntry } from './header.js'

export { openSafetensors, type TensorFiles } from './file.js'
export type { TensorEntry } from './header.js'

/** Names that Transformers gives the weights of a folder. */
export const wholeFile = 'model.safetensors'
export const indexFile = 'model.safetensors.index.json'

/** Key to the name of its shard, as the index has it, where that can be a name; what is wrong with the others. */
interface ShardIndex {
  readonly weightMap: ReadonlyMap<string, string>
  readonly issues: readonly (Issue & { readonly key: string })[]
}

const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (s) => s.isFile(),
    () => false
  )
const isRecord = (x: unknown): x is Readonly<Record<string, unknown>> => typeof x === 'object' && x !== null && !Array.isArray(x)

/** A plain name: a shard lies beside its index, nowhere else. */
const isPlainName = (name: string) => name !== '' && name !== '..' && basename(name) === name && !/[\\\0]/.test(name)

/** Why a value of the index is no name of a shard. */
const nameIssue = (file: string, key: string, name: unknown): ShardIndex['issues'] => {
  const wrong = (tag: string, what: string) => [{ ...issue(tag, `${file}: weight_map.${key} ${what}`, { file, name }), key }]
  if (typeof name !== 'string') return wrong('IndexMalformed', `is ${JSON.stringify(name)}, not the name of a file`)
  return isPlainName(name) ? [] : wrong('UnsafePath', `names ${JSON.stringify(name)}; only files beside the index are read`)
}

const readIndex = async (file: string): Promise<E.Either<Issues, ShardIndex>> => {
  const malformed = (what: string) => E.left<Issues>([issue('IndexMalformed', `${file}: ${what}`, { file })])
  let json: unknown
  try {
    json = JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    return malformed(`it is not JSON (${(error as Error).message})`)
  }
  const map = isRecord(json) ? json.weight_map : undefined
  if (!isRecord(map)) return malformed('its weight_map is not an object that names the file of each tensor')
  const issues = Object.entries(map).flatMap(([key, name]) => nameIssue(file, key, name))
  const wrong = new Set(issues.map(({ key }) => key))
  return E.right({ issues, weightMap: new Map(Object.entries(map as Record<string, string>).filter(([key]) => !wrong.has(key))) })
}

/** Each key in the shard that the index names, and only there. */
const indexIssues = (
  index: string,
  folder: string,
  { weightMap, issues }: ShardIndex,
  shards: readonly TensorFiles[]
): readonly Issue[] => {
  const unnamed = new Set(issues.map(({ key }) => key))
  const opened = new Set(shards.flatMap(({ handles }) => [...handles.keys()]))
  const holders = new Map<string, TensorEntry[]>()
  for (const entry of shards.flatMap(({ entries }) => [...entries.values()]))
    holders.set(entry.key, [...(holders.get(entry.key) ?? []), entry])
  const absent = [...weightMap].flatMap(([key, name]) => {
    const file = join(folder, name)
    const isThere = !opened.has(file) || holders.get(key)?.some((entry) => entry.file === file)
    return isThere ? [] : [issue('KeyNotInShard', `${file}: it lacks tensor ${key}, which ${index} places there`, { file, key })]
  })
  const extra = [...holders].flatMap(([key, entries]) => {
    const files = entries.map(({ file }) => file)
    if (files.length > 1)
      return [issue('DuplicateKey', `tensor ${key} is in several shards: ${files.join(', ')}`, { key, files })]
    return weightMap.has(key) || unnamed.has(key)
      ? []
      : [issue('KeyNotInIndex', `${files[0]}: tensor ${key} is not in ${index}`, { file: files[0], key })]
  })
  return [...issues, ...absent, ...extra]
}

const openShards = async (folder: string): Promise<E.Either<Issues, TensorFiles>> => {
  const index = join(folder, indexFile)
  const read = await readIndex(index)
  if (E.isLeft(read)) return read
  const names = [...new Set(read.right.weightMap.values())].sort()
  const shards = await Promise.all(names.map((name) => openSafetensors(join(folder, name))()))
  const opened = shards.flatMap((shard) => (E.isRight(shard) ? [shard.right] : []))
  const issues = [
    ...shards.flatMap((shard) => (E.isLeft(shard) ? shard.left : [])),
    ...indexIssues(index, folder, read.right, opened)
  ]
  if (issues.length) await Promise.all(opened.map((shard) => shard.close()))
  return whenValid(issues, () =>
    filesOf(
      {
        entries: new Map(opened.flatMap(({ entries }) => [...entries])),
        metadata: Object.assign({}, ...opened.map(({ metadata }) => metadata))
      },
      new Map(opened.flatMap(({ handles }) => [...handles]))
    )
  )
}

/**
 * The weights of a checkpoint folder: `model.safetensors`, or the shards of `model.safetensors.index.json`.
 * Errors, those of every shard together: `FolderMissing`, `WeightsMissing`, `IndexMalformed`, `UnsafePath`, `KeyNotInShard`,
 * `KeyNotInIndex`, `DuplicateKey`, and those of `openSafetensors`.
 */
export const openCheckpointTensors =
  (folder: string): TaskEither<Issues, TensorFiles> =>
  async () => {
    const isFolder = await stat(folder).then(
      (s) => s.isDirectory(),
      () => undefined
    )
    if (!isFolder) {
      const what = isFolder === undefined ? 'no such folder' : 'it is a file; give the folder that holds config.json'
      return E.left([issue('FolderMissing', `${folder}: ${what}`, { file: folder })])
    }
    if (await isFile(join(folder, wholeFile))) return openSafetensors(join(folder, wholeFile))()
    if (await isFile(join(folder, indexFile))) return openShards(folder)
    const message = `${folder}: no weights; it should hold ${wholeFile}, or ${indexFile} with its shards`
    return E.left([issue('WeightsMissing', message, { file: folder })])
  }
