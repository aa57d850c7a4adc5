import { open, rename, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid } from '../error.js'
import { readSmallText } from '../files.js'
import { isRecord } from '../plain-object.js'
import { removeStale } from './shards.js'

/** Name of the commit marker in a folder. */
export const commitFile = '.internvl-commit.json'

/** A replacement of files of one folder: complete and flushed under temporary names, to be renamed. */
export interface Commit {
  /** Temporary name of each file by its final name, in the order of renaming. */
  readonly files: Readonly<Record<string, string>>
  /** Whether weights that are not among the files are removed after the renames. */
  readonly replacesWeights: boolean
}

const isPlainName = (name: string): boolean => name !== '' && name !== '..' && basename(name) === name && !name.includes('\\')

/** A temporary name belongs to its file, so that a marker from elsewhere can rename nothing else. */
const isCommit = (value: unknown): value is Commit =>
  isRecord(value) &&
  typeof value.replacesWeights === 'boolean' &&
  isRecord(value.files) &&
  Object.entries(value.files).every(
    ([name, temporary]) =>
      isPlainName(name) && typeof temporary === 'string' && temporary.startsWith(`.${name}.`) && /^\d+\.tmp$/.test(temporary.slice(name.length + 2)) // biome-ignore format: one condition
  )

const ignoreMissing = (error: NodeJS.ErrnoException): void => {
  if (error.code !== 'ENOENT') throw error
}

/** Writes the commit marker. From here on the replacement is certain: `finishCommit` does the rest, now or when the folder is opened. */
export const writeCommit = async (folder: string, commit: Commit): Promise<void> => {
  const temporary = join(folder, `.${commitFile}.${process.pid}.tmp`)
  const handle = await open(temporary, 'w')
  try {
    await handle.writeFile(JSON.stringify(commit))
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(temporary, join(folder, commitFile))
}

/** Renames the files of a commit marker, removes old weights, and deletes the marker. Does nothing for a folder without a marker. */
export const runCommit = async (folder: string): Promise<void> => {
  const text = await readSmallText(join(folder, commitFile)).catch(() => undefined)
  if (text === undefined) return
  const commit: unknown = JSON.parse(text)
  if (!isCommit(commit)) throw new Error(`${commitFile} is not a commit marker of this library; delete it`)
  for (const [name, temporary] of Object.entries(commit.files))
    await rename(join(folder, temporary), join(folder, name)).catch(ignoreMissing) // renamed already, before the process was killed
  if (commit.replacesWeights) await removeStale(folder, Object.keys(commit.files))
  await rm(join(folder, commitFile), { force: true })
}

/**
 * Finishes a replacement of files that was interrupted after its commit, so that a folder never mixes two checkpoints. Every reader of
 * a folder calls it first. Error: `CommitUnfinished`, for a folder that cannot be written.
 */
export const finishCommit =
  (folder: string): TaskEither<Issues, void> =>
  async () => {
    try {
      return E.right(await runCommit(folder))
    } catch (error) {
      const message = `${folder}: the replacement of its files was interrupted and cannot be finished (${(error as Error).message}); make the folder writable, or save the model again`
      return invalid('CommitUnfinished', message, { path: folder })
    }
  }
