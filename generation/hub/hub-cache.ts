import { copyFile, link, mkdir, readFile, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { missingFiles } from './hub-files.js'

/** Folder of a repository in the cache. Source: `repo_folder_name` (huggingface_hub 2.4). */
export const repoFolder = (cache: string, repo: string): string => join(cache, `models--${repo.replace('/', '--')}`)

/** A commit's files under their own names, each a link to its blob. */
export const snapshotFolder = (store: string, commit: string): string => join(store, 'snapshots', commit)

/** Whether a revision is a commit itself. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/i.test(revision)

let writes = 0
/** A name beside `path` that no other writer has. */
const beside = (path: string): string => `${path}.${process.pid}-${++writes}.tmp`

/** The commit that a branch or tag named when it was last asked for. */
const readRef = (store: string, revision: string): Promise<string | undefined> =>
  readFile(join(store, 'refs', revision), 'utf8').then(
    (text) => text.trim(),
    () => undefined
  )

/** Remembers which commit a branch or tag names; a cache that says so already is not written to. */
export const writeRef = async (store: string, revision: string, commit: string): Promise<void> => {
  if (revision === commit || (await readRef(store, revision)) === commit) return
  const path = join(store, 'refs', revision)
  await mkdir(dirname(path), { recursive: true })
  const temporary = beside(path)
  await writeFile(temporary, commit)
  await rename(temporary, path)
}

/** A snapshot that the cache holds, and what it lacks to be opened. */
export interface Cached {
  readonly commit: string
  readonly folder: string
  readonly missing: readonly string[]
}

/** The snapshot of a revision as the cache knows it, whole or not. */
export const findCached = async (store: string, revision: string): Promise<Cached | undefined> => {
  const commit = isCommit(revision) ? revision.toLowerCase() : await readRef(store, revision)
  if (commit === undefined || !isCommit(commit)) return undefined
  const folder = snapshotFolder(store, commit)
  const isFolder = await stat(folder).then(
    (s) => s.isDirectory(),
    () => false
  )
  return isFolder ? { commit, folder, missing: await missingFiles(folder) } : undefined
}

/** Bytes of a file, links followed; `undefined` where there is none. */
export const sizeOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    ({ size }) => size,
    () => undefined
  )

/**
 * Lets `pointer` show a blob: by a relative link as Python does, so that the cache can be moved; a second name of the file, or
 * a copy, where the file system has no links.
 */
export const pointTo = async (blob: string, pointer: string): Promise<void> => {
  await mkdir(dirname(pointer), { recursive: true })
  const temporary = beside(pointer)
  const target = relative(await realpath(dirname(pointer)), await realpath(blob))
  await symlink(target, temporary)
    .catch(() => link(blob, temporary))
    .catch(() => copyFile(blob, temporary))
  await rename(temporary, pointer).catch(async (error: unknown) => {
    await rm(temporary, { force: true })
    throw error
  })
}
