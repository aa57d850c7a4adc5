import { createHash } from 'node:crypto'
import { readdir, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { cacheFolder } from '../../lib/engines/install/engine-folder.js'
import { awaitTurn, openStaging, publish, sweep } from '../../lib/engines/install/staging.js'
import { type Issues, issue } from '../../lib/error.js'
import { isThere } from '../../lib/is-there.js'
import { writeFailed } from '../../lib/safetensors/write.js'
import { convertModel } from '../checkpoint/convert-model.js'
import { type OpenOptions, openCheckpoint, readingIssues } from '../checkpoint/open-checkpoint.js'
import { precisionOf } from './precision.js'
import { packedVersion } from './quantized-keys.js'
import type { FormOptions } from './weight-formats.js'

export interface CacheOptions {
  /** Keeps the weights that `quantize` makes in the user's cache, and reads them from there the next time. */
  readonly cache?: boolean | undefined
}

interface Options extends OpenOptions, FormOptions, CacheOptions {
  readonly onProgress?: (done: number, total: number) => void
}

/** Counts up when weights are packed in another way, so that older ones are made anew. */
const format = 1

const hash = (of: unknown): string => createHash('sha256').update(JSON.stringify(of)).digest('hex').slice(0, 16)

/** What the system says of the files that a model is made of: of one that was changed, something else. */
const stampOf = async (dir: string): Promise<string> => {
  const names = (await readdir(dir))
    .filter((name) => name === 'config.json' || /\.safetensors(\.index\.json)?$/.test(name))
    .sort()
  const files = names.map(async (name) => {
    const { ino, size, mtimeMs, ctimeMs } = await stat(join(dir, name))
    return [name, ino, size, mtimeMs, ctimeMs]
  })
  return hash(await Promise.all(files))
}

/** Packs a checkpoint into a folder that is there when all of it is; who comes while another process does that waits for it. */
const pack = async (dir: string, stamp: string, folder: string, options: Options): Promise<E.Either<Issues, unknown>> => {
  const { imageTokenId, dtype, quantize, onProgress } = options
  const staging = await openStaging(folder).catch((error) => error as Error)
  if (staging instanceof Error) return E.left(writeFailed(folder, staging))
  try {
    await awaitTurn(staging, folder)
    if (await isThere(folder)) return E.right(undefined)
    const checkpoint = await openCheckpoint(dir, { imageTokenId })()
    if (E.isLeft(checkpoint)) return checkpoint
    const { layout, files } = checkpoint.right
    const made = join(staging.path, 'packed')
    const convert = convertModel(checkpoint.right, made, { layout, dtype, quantize, ...(onProgress ? { onProgress } : {}) })
    const done = await convert().finally(() => files.close())
    if (E.isLeft(done)) return done
    if ((await stampOf(dir)) !== stamp)
      return E.left([issue('FileUnreadable', `${dir}: its files changed while they were packed`)])
    await publish(made, folder, staging, () => isThere(folder))
    return done
  } catch (error) {
    return E.left(readingIssues(dir, error))
  } finally {
    await staging.close()
  }
}

/** Removes what was packed of the same folder in the same way before it changed, and what killed processes left. */
const removeOlder = async (folder: string): Promise<void> => {
  const [name, all] = [basename(folder), dirname(folder)]
  const older = (await readdir(all)).filter((each) => each !== name && each.split('-')[0] === name.split('-')[0])
  const finished = older.filter((each) => !each.includes('.')).map((each) => join(all, each))
  // under another name first: what is left of one that was not removed to its end must not count as whole
  await Promise.all(finished.map((each) => rename(each, `${each}.staging-${process.pid}-gone-000000`).catch(() => undefined)))
  await Promise.all(finished.map((each) => rm(`${each}.staging-${process.pid}-gone-000000`, { recursive: true, force: true })))
  await sweep(all)
}

/** The folder of a checkpoint in the bits that are asked for, in the user's cache: made where it is not there yet. */
const packedFolder = async (dir: string, options: Options): Promise<E.Either<Issues, string>> => {
  const [path, stamp] = await Promise.all([realpath(dir), stampOf(dir)]).catch(() => [])
  if (path === undefined || stamp === undefined) return E.right(dir) // whoever opens it says what is wrong
  const source = hash([format, packedVersion, path, precisionOf(options)])
  const folder = join(cacheFolder(), 'packed', `${source}-${stamp}`)
  if (await isThere(folder)) return E.right(folder)
  const made = await pack(dir, stamp, folder, options)
  if (E.isRight(made)) await removeOlder(folder).catch(() => undefined) // what is there serves all the same
  return E.map(() => folder)(made)
}

/**
 * Where the weights of a checkpoint folder are read from, and with which options. With `cache` that is a folder in the user's cache,
 * which opens without options as what `dir` is when it is quantized; the first time takes what packing and writing take. Call
 * `selectEngine` first; `configure` changes what is loaded, not what is packed. Throws a `RangeError` where nothing is quantized.
 */
export const cachedWeights = <O extends Options>(
  dir: string,
  options: O
): TaskEither<Issues, { readonly dir: string; readonly options: O }> => {
  if (options.cache && !Object.values(precisionOf(options)).some((form) => form.startsWith('int')))
    throw new RangeError('cache: only weights in fewer bits are kept; say with quantize how many')
  return async () => {
    const folder = options.cache ? await packedFolder(dir, options) : E.right(dir)
    return E.map((from: string) => ({
      dir: from,
      options: from === dir ? options : { ...options, quantize: undefined, dtype: undefined, asStored: true }
    }))(folder)
  }
}
