import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, relative } from 'node:path'
import { pipeline } from 'node:stream/promises'
import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import { type Issue, type Issues, issue, whenValid } from '../../error.js'
import { mendHint, setupHint } from './hints.js'

/** Counts up when an engine is made in another way, so that older ones are made anew. */
export const manifestFormat = 2

/** What a finished engine folder says of itself, in `manifest.json`. */
const manifestCodec = t.type({
  format: t.literal(manifestFormat),
  tensorflow: t.string,
  variant: t.union([t.literal('cpu'), t.literal('cuda')]),
  wheels: t.array(t.type({ file: t.string, sha256: t.string })),
  compiler: t.string,
  files: t.array(t.type({ path: t.string, bytes: t.number, sha256: t.string }))
})
export type EngineManifest = t.TypeOf<typeof manifestCodec>

/** Where everything that is made once a user lies: `INTERNVL_CACHE`, else `internvl-tfjs` in `XDG_CACHE_HOME` or `~/.cache`. */
export const cacheFolder = (env: NodeJS.ProcessEnv = process.env): string =>
  env.INTERNVL_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'internvl-tfjs')

/** The engines' part of the cache. */
export const enginesFolder = (env: NodeJS.ProcessEnv = process.env): string => join(cacheFolder(env), 'engines')

/** SHA-256 of a file's bytes, in hexadecimal. */
export const hashFile = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}

/** Every file below `folder`, as paths relative to it. */
const filesBelow = async (folder: string): Promise<readonly string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort()

/** Sizes and hashes of all files below `folder`. */
export const listFiles = (folder: string): Promise<EngineManifest['files']> =>
  filesBelow(folder).then((paths) =>
    Promise.all(
      paths.map(async (path) => ({
        path,
        bytes: (await stat(join(folder, path))).size,
        sha256: await hashFile(join(folder, path))
      }))
    )
  )

const damaged = (path: string, why: string): Issues => [
  issue('DamagedEngine', `${path}: ${why}; make the native engine anew with \`${mendHint}\``, { path, mend: mendHint })
]

/** The manifest of a finished engine folder; `NotSetUp` where there is none, `DamagedEngine` where it cannot be read. */
export const readManifest = async (folder: string): Promise<E.Either<Issues, EngineManifest>> => {
  const path = join(folder, 'manifest.json')
  const text = await readFile(path, 'utf8').catch(() => undefined)
  if (text === undefined) {
    const message = `the native engine is not set up; set it up with \`${setupHint}\``
    return E.left([issue('NotSetUp', message, { path: folder, mend: setupHint })])
  }
  const json = E.tryCatch(() => JSON.parse(text) as unknown, String)
  return E.mapLeft(() => damaged(path, 'not a manifest of this version'))(E.chainW(manifestCodec.decode)(json))
}

/**
 * Whether a finished engine folder still is what was set up: by size, which takes a millisecond, or with `hash` by SHA-256, a few
 * seconds. Every damaged file is an error of its own.
 */
export const verifyEngine = async (folder: string, { hash = false } = {}): Promise<E.Either<Issues, EngineManifest>> => {
  const manifest = await readManifest(folder)
  if (E.isLeft(manifest)) return manifest
  const checkFile = async (file: EngineManifest['files'][number]): Promise<readonly Issue[]> => {
    const path = join(folder, file.path)
    const bytes = await stat(path).then(
      ({ size }) => size,
      () => undefined
    )
    if (bytes === undefined) return damaged(path, 'the file is gone')
    if (bytes !== file.bytes) return damaged(path, `${bytes} bytes, ${file.bytes} were set up`)
    return hash && (await hashFile(path)) !== file.sha256 ? damaged(path, 'its bytes are not those that were set up') : []
  }
  const issues = await Promise.all(manifest.right.files.map(checkFile))
  return whenValid(issues.flat(), () => manifest.right)
}

/** Bytes that a folder takes, all below it; 0 where there is none. */
export const folderBytes = (folder: string): Promise<number> =>
  filesBelow(folder).then(
    async (paths) => {
      const sizes = await Promise.all(
        paths.map((path) =>
          stat(join(folder, path)).then(
            ({ size }) => size,
            () => 0
          )
        )
      )
      return sizes.reduce((a, b) => a + b, 0)
    },
    () => 0
  )
