import { createHash } from 'node:crypto'
import { createReadStream, type Stats } from 'node:fs'
import { chmod, mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, invalid, issue } from '../../error.js'
import { forceSetupHint } from './hints.js'

// Native libraries run with all rights of the user. Before one is loaded, its owner, its permissions and its SHA-256 are checked.

/** SHA-256 of a file's bytes, in hexadecimal. */
export const hashFile = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}

/** Creates a folder, and missing parents, that only the current user can enter. An existing folder keeps its permissions. */
export const makePrivateFolder = async (path: string): Promise<void> => {
  await mkdir(path, { recursive: true, mode: 0o700 })
}

const quoted = (path: string): string => `'${path.replaceAll("'", `'\\''`)}'`

/** The issue of a path that another user could change: a foreign owner, or write permission for the group or for everybody. */
export const permissionIssue = (
  path: string,
  { uid, mode }: Pick<Stats, 'uid' | 'mode'>,
  user = process.getuid?.()
): Issue | undefined => {
  if (user === undefined) return undefined // Windows has no numeric owners
  if (uid !== user && uid !== 0) {
    const fix = `sudo chown -R ${user} ${quoted(path)}`
    const message = `${path}: belongs to user ${uid}, and that user could change the code that runs; take ownership with \`${fix}\`, or name a folder of your own in INTERNVL_CACHE`
    return issue('UnsafeFile', message, { path, expected: user, actual: uid, fix })
  }
  if ((mode & 0o022) === 0) return undefined
  const fix = `chmod -R go-w ${quoted(path)}`
  return issue('UnsafeFile', `${path}: other users can write; remove the permission with \`${fix}\``, { path, fix })
}

/** Issues of all existing paths that another user could change. */
export const permissionIssues = async (paths: readonly string[]): Promise<readonly Issue[]> => {
  const issues = await Promise.all(
    paths.map(async (path) => {
      const stats = await stat(path).catch(() => undefined)
      return stats && permissionIssue(path, stats)
    })
  )
  return issues.filter((found) => found !== undefined)
}

/** Writes a file in one step: a reader sees the old text or the new text, never a part. */
export const writeAtomically = async (path: string, text: string): Promise<void> => {
  const temporary = `${path}.${process.pid}`
  await writeFile(temporary, text, { mode: 0o644 })
  await rename(temporary, path)
}

/** Removes write permission for the group and for everybody from a folder and all below it. */
export const removeForeignWrite = async (folder: string): Promise<void> => {
  const below = (await readdir(folder, { recursive: true })).map((name) => join(folder, name))
  await Promise.all([folder, ...below].map(async (path) => chmod(path, (await stat(path)).mode & 0o755)))
}

const recordOf = (library: string): string => `${library}.sha256`

/** Records the SHA-256 of a library that was just compiled, in `<library>.sha256`, and removes write permission for other users. */
export const recordHash = async (library: string): Promise<void> => {
  await chmod(library, 0o755)
  await writeAtomically(recordOf(library), await hashFile(library))
}

/** Right where owner, permissions and recorded hash of a library are as they were when it was compiled. */
export const verifyRecordedHash = async (library: string): Promise<E.Either<Issues, string>> => {
  const [unsafe] = await permissionIssues([library, recordOf(library)])
  if (unsafe) return E.left([unsafe])
  const expected = await readFile(recordOf(library), 'utf8').catch(() => 'none')
  const actual = await hashFile(library)
  const message = `${library}: SHA-256 is ${actual}, recorded is ${expected}; compile it again with \`${forceSetupHint}\``
  return actual === expected
    ? E.right(library)
    : invalid('DamagedKernels', message, { path: library, expected, actual, fix: forceSetupHint })
}
