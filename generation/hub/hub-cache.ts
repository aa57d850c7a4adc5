import { copyFile, link, mkdir, readFile, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { missingFiles } from './hub-files.js'

/** Folder of a repository in the cache. Source: `repo_folder_name` (huggingface_hub 2.4). */
export const repoFolder = (cache: string, repo: string): string => join(cache, `models--${repo.replace('/', '--')}`)

/** Folder of a commit: its files under their own names, each a link to its blob. */
export const snapshotFolder = (store: string, commit: string): string => join(store, 'snapshots', commit)

/** Whether a revision is a commit hash. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/i.test(revision)

let writes = 0
/** A file name in the folder of `path` that no other writer uses. */
const temporaryName = (path: string): string => `${path}.${process.pid}-${++writes}.tmp`

/** The commit of a branch or tag at the last download. */
const readRef = (store: string, revision: string): Promise<string | undefined> =>
  readFile(join(store, 'refs', revision), 'utf8').then(
    (text) => text.trim(),
    () => undefined
  )

/** Records the commit of a branch or tag; a cache that has this record is not written to. */
export const writeRef = async (store: string, revision: string, commit: string): Promise<void> => {
  if (revision === commit || (await readRef(store, revision)) === commit) return
  const path = join(store, 'refs', revision)
  await mkdir(dirname(path), { recursive: true })
  const temporary = temporaryName(path)
  await writeFile(temporary, commit)
  await rename(temporary, path)
}

/** A cached snapshot and the files that are missing to load it. */
export interface CachedSnapshot {
  readonly commit: string
  readonly folder: string
  readonly missing: readonly string[]
}

/** The cached snapshot of a revision, complete or not. */
export const findCached = async (store: string, revision: string): Promise<CachedSnapshot | undefined> => {
  const commit = isCommit(revision) ? revision.toLowerCase() : await readRef(store, revision)
  if (commit === undefined || !isCommit(commit)) return undefined
  const folder = snapshotFolder(store, commit)
  const isFolder = await stat(folder).then(
    (s) => s.isDirectory(),
    () => false
  )
  return isFolder ? { commit, folder, missing: await missingFiles(folder) } : undefined
}

/** Size of a file in bytes, links followed; undefined if the file does not exist. */
export const sizeOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    ({ size }) => size,
    () => undefined
  )

/**
 * Makes `pointer` a relative symbolic link to a blob, as Python does, so that the cache can be moved; a hard link or a copy where
 * the file system has no symbolic links.
 */
export const linkBlob = async (blob: string, pointer: string): Promise<void> => {
  await mkdir(dirname(pointer), { recursive: true })
  const temporary = temporaryName(pointer)
  const target = relative(await realpath(dirname(pointer)), await realpath(blob))
  await symlink(target, temporary)
    .catch(() => link(blob, temporary))
    .catch(() => copyFile(blob, temporary))
  await rename(temporary, pointer).catch(async (error: unknown) => {
    await rm(temporary, { force: true })
    throw error
  })
}
