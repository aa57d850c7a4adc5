import { stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { errorText, type Issue, type Issues, invalid, issue, valueText, whenValid } from '../error.js'
import { isFile, readSmallText } from '../files.js'
import { isRecord } from '../plain-object.js'
import { filesOf, openSafetensors, type TensorFiles } from './file.js'
import type { TensorEntry } from './header.js'

export { openSafetensors, type TensorFiles } from './file.js'
export type { TensorEntry } from './header.js'

/** File names of the weights in a checkpoint folder, as Transformers writes them. */
export const wholeFile = 'model.safetensors'
export const indexFile = 'model.safetensors.index.json'

/** The shard's file name of each key in the index, and the errors of invalid entries. */
interface ShardIndex {
  readonly weightMap: ReadonlyMap<string, string>
  readonly issues: readonly (Issue & { readonly key: string })[]
}

/** Whether a name is a plain file name: shards must lie in the folder of the index. */
const isPlainName = (name: string) => name !== '' && name !== '..' && basename(name) === name && !/[\\\0]/.test(name)

/** The error of an index entry that is not a valid shard name, or an empty list. */
const nameIssue = (file: string, key: string, name: unknown): ShardIndex['issues'] => {
  const wrong = (tag: string, what: string) => [{ ...issue(tag, `${file}: weight_map.${key} ${what}`, { file, name }), key }]
  if (typeof name !== 'string') return wrong('IndexMalformed', `is ${valueText(name)}, not the name of a file`)
  return isPlainName(name) ? [] : wrong('UnsafePath', `names ${JSON.stringify(name)}; only files beside the index are read`)
}

const shardIndex = (file: string, weightMap: Readonly<Record<string, unknown>>): ShardIndex => {
  const issues = Object.entries(weightMap).flatMap(([key, name]) => nameIssue(file, key, name))
  const invalidKeys = new Set(issues.map(({ key }) => key))
  const valid = Object.entries(weightMap as Record<string, string>).filter(([key]) => !invalidKeys.has(key))
  return { issues, weightMap: new Map(valid) }
}

const readIndex = (file: string): TE.TaskEither<Issues, ShardIndex> => {
  const malformed = (what: string): Issues => [issue('IndexMalformed', `${file}: ${what}`, { file })]
  return pipe(
    TE.tryCatch(
      async (): Promise<unknown> => JSON.parse(await readSmallText(file)),
      (error) => malformed(`it is not JSON (${errorText(error)})`)
    ),
    TE.map((json) => (isRecord(json) ? json.weight_map : undefined)),
    TE.filterOrElse(isRecord, () => malformed('its weight_map is not an object that names the file of each tensor')),
    TE.map((map) => shardIndex(file, map))
  )
}

/** Errors of keys that are not in exactly the shard that the index names. */
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
    const found = !opened.has(file) || holders.get(key)?.some((entry) => entry.file === file)
    return found
      ? []
      : [issue('KeyNotInShard', `${file}: it lacks tensor ${key}, which ${index} lists for this file`, { file, key })]
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

/** All shards as one; the shards are closed if there is any error. */
const joinShards = async (
  folder: string,
  index: ShardIndex,
  shards: ReadonlyArray<E.Either<Issues, TensorFiles>>
): Promise<E.Either<Issues, TensorFiles>> => {
  const { left: failed, right: opened } = RA.separate(shards)
  const issues = [...failed.flat(), ...indexIssues(join(folder, indexFile), folder, index, opened)]
  if (issues.length > 0) await Promise.all(opened.map((shard) => shard.close()))
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

const openShards = (folder: string): TE.TaskEither<Issues, TensorFiles> =>
  pipe(
    readIndex(join(folder, indexFile)),
    TE.flatMap((index) => async () => {
      const names = [...new Set(index.weightMap.values())].sort()
      return joinShards(folder, index, await Promise.all(names.map((name) => openSafetensors(join(folder, name))())))
    })
  )

/** Checks that a path is a folder. */
const expectFolder =
  (folder: string): TE.TaskEither<Issues, void> =>
  async () => {
    const isFolder = await stat(folder).then(
      (found) => found.isDirectory(),
      () => undefined
    )
    if (isFolder) return E.right(undefined)
    const what = isFolder === undefined ? 'no such folder' : 'it is a file; give the folder that holds config.json'
    return invalid('FolderMissing', `${folder}: ${what}`, { file: folder })
  }

/**
 * The weights of a checkpoint folder: `model.safetensors`, or the shards of `model.safetensors.index.json`.
 * Errors of all shards together: `FolderMissing`, `WeightsMissing`, `IndexMalformed`, `UnsafePath`, `KeyNotInShard`,
 * `KeyNotInIndex`, `DuplicateKey`, and the errors of `openSafetensors`.
 */
export const openCheckpointTensors = (folder: string): TE.TaskEither<Issues, TensorFiles> =>
  pipe(
    expectFolder(folder),
    TE.flatMap(() => async () => {
      if (await isFile(join(folder, wholeFile))) return openSafetensors(join(folder, wholeFile))()
      if (await isFile(join(folder, indexFile))) return openShards(folder)()
      const message = `${folder}: no weights; it should hold ${wholeFile}, or ${indexFile} with its shards`
      return invalid('WeightsMissing', message, { file: folder })
    })
  )
