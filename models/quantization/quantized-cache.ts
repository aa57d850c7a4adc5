import { createHash } from 'node:crypto'
import { readdir, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { emitWarning } from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { cacheFolder } from '../../lib/engines/install/engine-folder.js'
import { acquireLock, openStaging, publish, removeStaleStaging } from '../../lib/engines/install/staging.js'
import { type Issues, invalid } from '../../lib/error.js'
import { exists } from '../../lib/files.js'
import { writeFailed } from '../../lib/safetensors/write.js'
import { convertModel } from '../checkpoint/convert-model.js'
import { type OpenOptions, openCheckpoint, readingIssues } from '../checkpoint/open-checkpoint.js'
import { precisionOf } from './precision.js'
import { quantizedVersion } from './quantized-keys.js'
import type { WeightFormatOptions } from './weight-formats.js'

export interface CacheOptions {
  /**
   * Keeps the quantized weights in the user's cache folder, and loads them from there the next time. Without space or permission
   * there, a warning is emitted and the model loads without the cache.
   */
  readonly cache?: boolean | undefined
  /** Called with warnings; by default `process.emitWarning`. */
  readonly onWarning?: ((line: string) => void) | undefined
}

interface Options extends OpenOptions, WeightFormatOptions, CacheOptions {
  readonly onProgress?: (done: number, total: number) => void
}

/** Version of the quantization algorithm: counting up makes cached weights of older releases stale. */
const algorithmVersion = 1

const hash = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16)

/** A hash of the identity, size and times of the files of a model, which changes with each of the files. */
const fingerprintOf = async (dir: string): Promise<string> => {
  const names = (await readdir(dir))
    .filter((name) => name === 'config.json' || /\.safetensors(\.index\.json)?$/.test(name))
    .sort()
  const files = names.map(async (name) => {
    const { ino, size, mtimeMs, ctimeMs } = await stat(join(dir, name))
    return [name, ino, size, mtimeMs, ctimeMs]
  })
  return hash(await Promise.all(files))
}

/** Quantizes a checkpoint into a new folder. Errors: those of opening and converting, and files that change meanwhile. */
const convertInto = (dir: string, target: string, options: Options): TE.TaskEither<Issues, unknown> => {
  const { imageTokenId, dtype, quantize, onProgress } = options
  return pipe(
    openCheckpoint(dir, { imageTokenId }),
    TE.chain((checkpoint) => () => {
      const { layout, files } = checkpoint
      const convert = convertModel(checkpoint, target, { layout, dtype, quantize, ...(onProgress ? { onProgress } : {}) })
      return convert().finally(() => files.close())
    })
  )
}

/** Creates `folder` with the quantized checkpoint, complete or not at all. A concurrent process waits for the first to finish. */
const createCached = async (
  dir: string,
  fingerprint: string,
  folder: string,
  options: Options
): Promise<E.Either<Issues, unknown>> => {
  const staging = await openStaging(folder).catch((error) => error as Error)
  if (staging instanceof Error) return E.left(writeFailed(folder, staging))
  try {
    await acquireLock(staging, folder)
    if (await exists(folder)) return E.right(undefined)
    const target = join(staging.path, 'packed')
    const done = await convertInto(dir, target, options)()
    if (E.isLeft(done)) return done
    if ((await fingerprintOf(dir)) !== fingerprint)
      return invalid('FileUnreadable', `${dir}: its files changed while they were quantized`)
    await publish(target, folder, staging, () => exists(folder))
    return done
  } catch (error) {
    const isOfCache =
      error instanceof Error && 'syscall' in error && 'path' in error && String(error.path).startsWith(dirname(folder))
    return E.left(isOfCache ? writeFailed(folder, error) : readingIssues(dir, error))
  } finally {
    await staging.close()
  }
}

/** Removes cached versions of the same folder and options that are stale, and the leftovers of killed processes. */
const removeStale = async (folder: string): Promise<void> => {
  const [name, parent] = [basename(folder), dirname(folder)]
  const stale = (await readdir(parent)).filter((other) => other !== name && other.split('-')[0] === name.split('-')[0])
  const complete = stale.filter((other) => !other.includes('.')).map((other) => join(parent, other))
  const renamed = (path: string) => `${path}.staging-${process.pid}-gone-000000`
  // renamed first: a folder that is removed in part must not count as complete
  await Promise.all(complete.map((path) => rename(path, renamed(path)).catch(() => undefined)))
  await Promise.all(complete.map((path) => rm(renamed(path), { recursive: true, force: true })))
  await removeStaleStaging(parent)
}

/** The folder of the quantized checkpoint in the user's cache, which is created where it does not exist. */
const cachedFolder = async (dir: string, options: Options): Promise<E.Either<Issues, string>> => {
  const [path, fingerprint] = await Promise.all([realpath(dir), fingerprintOf(dir)]).catch(() => [])
  if (path === undefined || fingerprint === undefined) return E.right(dir) // opening the folder reports the error
  const source = hash([algorithmVersion, quantizedVersion, path, precisionOf(options)])
  const folder = join(cacheFolder(), 'packed', `${source}-${fingerprint}`)
  if (await exists(folder)) return E.right(folder)
  const created = await createCached(dir, fingerprint, folder, options)
  if (E.isRight(created)) await removeStale(folder).catch(() => undefined) // stale folders do no harm
  return E.map(() => folder)(created)
}

/** The source folder, with a warning, if the only errors are of writing to the cache; all other errors stay. */
const withoutCache =
  (dir: string, { onWarning = emitWarning }: CacheOptions) =>
  (issues: Issues): TE.TaskEither<Issues, string> => {
    if (issues.some(({ _tag }) => _tag !== 'WriteFailed')) return TE.left(issues)
    onWarning(`${issues[0].message}; the model is loaded without the cache of quantized weights`)
    return TE.right(dir)
  }

/**
 * The folder and the options to load a checkpoint with. With `cache` that is a folder in the user's cache, which loads without
 * options like `dir` quantized; the first time takes as long as quantizing and writing. Call `selectEngine` first; `configure`
 * changes the loaded model, not the cached one. Throws a `RangeError` where nothing is quantized.
 */
export const cachedWeights = <O extends Options>(
  dir: string,
  options: O
): TE.TaskEither<Issues, { readonly dir: string; readonly options: O }> => {
  if (options.cache && !Object.values(precisionOf(options)).some((format) => format.startsWith('int')))
    throw new RangeError('cache: only quantized weights are cached; choose a quantization with quantize')
  return pipe(
    options.cache ? pipe(() => cachedFolder(dir, options), TE.orElse(withoutCache(dir, options))) : TE.right(dir),
    TE.map((from) => ({
      dir: from,
      options: from === dir ? options : { ...options, quantize: undefined, dtype: undefined, asStored: true }
    }))
  )
}
