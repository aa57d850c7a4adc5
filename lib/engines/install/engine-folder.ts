import { readdir, readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as t from 'io-ts'
import { type Issue, type Issues, issue, whenValid } from '../../error.js'
import { hashFile, permissionIssues, writeAtomically } from './file-trust.js'
import { forceSetupHint, setupHint } from './hints.js'

export { hashFile } from './file-trust.js'

/** Format of the engine folders that `setup` builds. Format 2, whose addon ignores the settings of worker threads, still loads. */
export const manifestFormat = 3

/**
 * Version of the addons. An engine of an earlier version loads, but cannot train on several machines (none is recorded), or prints information
 * of TensorFlow in worker threads (2).
 */
export const addonVersion = 3

const engineFile = t.intersection([
  t.type({ path: t.string, bytes: t.number, sha256: t.string }),
  t.partial({ mtimeMs: t.number, inode: t.number })
])

/** Contents of `manifest.json` in a finished engine folder. */
const manifestCodec = t.intersection([
  t.type({
    format: t.union([t.literal(2), t.literal(manifestFormat)]),
    tensorflow: t.string,
    variant: t.union([t.literal('cpu'), t.literal('cuda')]),
    wheels: t.array(t.type({ file: t.string, sha256: t.string })),
    compiler: t.string,
    files: t.array(engineFile)
  }),
  t.partial({ addon: t.number })
])
export type EngineManifest = t.TypeOf<typeof manifestCodec>
type EngineFile = EngineManifest['files'][number]

/** The user's cache folder: `INTERNVL_CACHE`, else `internvl-tfjs` in `XDG_CACHE_HOME` or `~/.cache`. */
export const cacheFolder = (env: NodeJS.ProcessEnv = process.env): string =>
  env.INTERNVL_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'internvl-tfjs')

/** The folder of all engines in the cache. */
export const enginesFolder = (env: NodeJS.ProcessEnv = process.env): string => join(cacheFolder(env), 'engines')

const manifestPath = (folder: string): string => join(folder, 'manifest.json')

/** Every file below `folder`, as sorted paths relative to it. */
const filesBelow = async (folder: string): Promise<readonly string[]> =>
  (await readdir(folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort()

/** Size, modification time and inode of a file. A file whose stamp has not changed is not hashed again at start. */
const stampOf = async (path: string): Promise<Pick<EngineFile, 'bytes' | 'mtimeMs' | 'inode'>> => {
  const { size, mtimeMs, ino } = await stat(path)
  return { bytes: size, mtimeMs, inode: ino }
}

/** Stamp and hash of all files below `folder`. */
export const listFiles = async (folder: string): Promise<EngineManifest['files']> =>
  Promise.all(
    (await filesBelow(folder)).map(async (path) => {
      const absolute = join(folder, path)
      return { path, ...(await stampOf(absolute)), sha256: await hashFile(absolute) }
    })
  )

/** Writes the manifest of an engine folder. */
export const writeManifest = (folder: string, manifest: EngineManifest): Promise<void> =>
  writeAtomically(manifestPath(folder), `${JSON.stringify(manifest, null, 2)}\n`)

const damaged = (path: string, reason: string): Issues => [
  issue('DamagedEngine', `${path}: ${reason}; build the native engine again with \`${forceSetupHint}\``, {
    path,
    fix: forceSetupHint
  })
]

/** The manifest of an engine folder; `NotSetUp` where the folder has none, `DamagedEngine` where the manifest cannot be read. */
const readManifest = async (folder: string): Promise<E.Either<Issues, EngineManifest>> => {
  const text = await readFile(manifestPath(folder), 'utf8').catch(() => undefined)
  if (text === undefined) {
    const message = `the native engine is not set up; set it up with \`${setupHint}\``
    return E.left([issue('NotSetUp', message, { path: folder, fix: setupHint })])
  }
  return pipe(
    E.tryCatch(() => JSON.parse(text) as unknown, String),
    E.chainW(manifestCodec.decode),
    E.mapLeft(() => damaged(manifestPath(folder), 'not a manifest of this version'))
  )
}

/** Smaller files, such as the addon, are hashed at every start. */
const smallFile = 1 << 20 // bytes

interface FileState {
  /** The entry of the manifest, with the stamp that the file has now. */
  readonly file: EngineFile
  readonly issues: readonly Issue[]
}

/** Checks one file: by its hash, or where `quick` and the stamp is unchanged, by its stamp. */
const verifyFile =
  (folder: string, quick: boolean) =>
  async (file: EngineFile): Promise<FileState> => {
    const path = join(folder, file.path)
    const stamp = await stampOf(path).catch(() => undefined)
    if (!stamp) return { file, issues: damaged(path, 'the file is missing') }
    if (stamp.bytes !== file.bytes) return { file, issues: damaged(path, `${stamp.bytes} bytes, ${file.bytes} were set up`) }
    const unchanged = stamp.mtimeMs === file.mtimeMs && stamp.inode === file.inode
    if (quick && unchanged && file.bytes > smallFile) return { file, issues: [] }
    const intact = (await hashFile(path)) === file.sha256
    return intact
      ? { file: { ...file, ...stamp }, issues: [] }
      : { file, issues: damaged(path, 'its SHA-256 is not the recorded one') }
  }

const isRestamped = (before: EngineFile, after: EngineFile): boolean =>
  before.mtimeMs !== after.mtimeMs || before.inode !== after.inode

/** The engine folder, its manifest, its files and the folders between. */
const pathsOf = (folder: string, { files }: EngineManifest): readonly string[] => {
  const paths = new Set([folder, manifestPath(folder)])
  for (const { path } of files) for (let below = path; below !== '.'; below = dirname(below)) paths.add(join(folder, below))
  return [...paths]
}

/**
 * Checks that an engine folder is as `setup` built it: owner and permissions, sizes, and SHA-256 of every file. With `hash` false,
 * a large file is hashed only if its modification time or inode has changed since the last hash (a copied cache); the manifest then
 * records the new stamp. Quick: a few milliseconds; full: a few seconds. Every damaged file is an issue.
 */
export const verifyEngine = async (folder: string, { hash = false } = {}): Promise<E.Either<Issues, EngineManifest>> => {
  const read = await readManifest(folder)
  if (E.isLeft(read)) return read
  const manifest = read.right
  const unsafe = await permissionIssues(pathsOf(folder, manifest))
  const states = await Promise.all(manifest.files.map(verifyFile(folder, !hash)))
  const issues = [...unsafe, ...states.flatMap((state) => state.issues)]
  const files = states.map(({ file }) => file)
  const verified = { ...manifest, files }
  if (issues.length === 0 && files.some((file, i) => isRestamped(manifest.files[i] as EngineFile, file)))
    await writeManifest(folder, verified).catch(() => undefined) // a read-only cache is hashed at every start
  return whenValid(issues, () => verified)
}

/** Whether an engine folder is as `setup` built it, with the addon of this version; `hash` as in `verifyEngine`. */
export const isCurrent = async (folder: string, hash = false): Promise<boolean> => {
  const verified = await verifyEngine(folder, { hash })
  return E.isRight(verified) && verified.right.addon === addonVersion
}

/** Total size in bytes of all files below a folder; 0 where the folder does not exist. */
export const folderBytes = async (folder: string): Promise<number> => {
  const paths = await filesBelow(folder).catch(() => [])
  const sizes = await Promise.all(
    paths.map((path) =>
      stat(join(folder, path)).then(
        ({ size }) => size,
        () => 0
      )
    )
  )
  return sizes.reduce((sum, size) => sum + size, 0)
}
