import { join } from 'node:path'
import * as t from 'io-ts'
import { isFile, readSmallText } from '../../lib/files.js'
import { indexFile, wholeFile } from '../../lib/safetensors/read.js'

/** A file of a repository in the hub's listing: the name of its blob in the cache, its size in bytes, and its SHA-256 if listed. */
export interface RemoteFile {
  readonly path: string
  readonly etag: string
  readonly size: number
  readonly sha256: string | undefined
}

const configFiles =
  /^(?:(?:generation_|processor_|preprocessor_|video_preprocessor_)?config\.json|tokenizer\w*\.json|tokenizer\.model|vocab\.(?:json|txt)|merges\.txt|chat_template\.\w+|special_tokens_map\.json|added_tokens\.json)$/

/** Whether loading a checkpoint may read this file, weights aside; false for code, other formats and images. */
export const isConfigFile = (path: string): boolean => configFiles.test(path)

const Index = t.type({ weight_map: t.record(t.string, t.string) })

/** The distinct shards of an index; none if the index cannot be read, which the loader of the weights reports. */
export const shardsOf = async (index: string): Promise<readonly string[]> => {
  try {
    const json: unknown = JSON.parse(await readSmallText(index))
    return Index.is(json) ? [...new Set(Object.values(json.weight_map))].sort() : []
  } catch {
    return []
  }
}

/** Files that a snapshot lacks to be loaded: config.json, and the weights, which are one file or an index with all its shards. */
export const missingFiles = async (folder: string): Promise<readonly string[]> => {
  const whole = await isFile(join(folder, wholeFile))
  const indexed = !whole && (await isFile(join(folder, indexFile)))
  const weights = whole ? [] : indexed ? await shardsOf(join(folder, indexFile)) : [wholeFile]
  const needed = ['config.json', ...weights]
  const there = await Promise.all(needed.map((name) => isFile(join(folder, name))))
  return needed.filter((_, i) => !there[i])
}
