import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as t from 'io-ts'
import { indexFile, wholeFile } from '../../lib/safetensors/read.js'

/** A file of a repository as the hub lists it: the name of its blob in the cache, its bytes, and their hash where the hub tells it. */
export interface RemoteFile {
  readonly path: string
  readonly etag: string
  readonly size: number
  readonly sha256: string | undefined
}

const settings =
  /^(?:(?:generation_|processor_|preprocessor_|video_preprocessor_)?config\.json|tokenizer\w*\.json|tokenizer\.model|vocab\.(?:json|txt)|merges\.txt|chat_template\.\w+|special_tokens_map\.json|added_tokens\.json)$/

/** The files that opening a checkpoint may read, weights aside; never code, other formats or pictures. */
export const isSetting = (path: string): boolean => settings.test(path)

const Index = t.type({ weight_map: t.record(t.string, t.string) })

/** The shards that an index names, each once; none where it cannot be read, which whoever opens the weights then says. */
export const shardsOf = async (index: string): Promise<readonly string[]> => {
  try {
    const json: unknown = JSON.parse(await readFile(index, 'utf8'))
    return Index.is(json) ? [...new Set(Object.values(json.weight_map))].sort() : []
  } catch {
    return []
  }
}

const isThere = (path: string): Promise<boolean> =>
  stat(path).then(
    (s) => s.isFile(),
    () => false
  )

/** What a snapshot lacks to be opened: config.json, or weights that are one file or an index with all its shards. */
export const missingFiles = async (folder: string): Promise<readonly string[]> => {
  const whole = await isThere(join(folder, wholeFile))
  const indexed = !whole && (await isThere(join(folder, indexFile)))
  const weights = whole ? [] : indexed ? await shardsOf(join(folder, indexFile)) : [wholeFile]
  const needed = ['config.json', ...weights]
  const there = await Promise.all(needed.map((name) => isThere(join(folder, name))))
  return needed.filter((_, i) => !there[i])
}
