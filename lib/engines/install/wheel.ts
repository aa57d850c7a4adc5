import { mkdir, readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid, issue, taskValidation } from '../../error.js'
import { folderBytes } from './engine-folder.js'
import { hashFile } from './file-trust.js'
import { setupHint } from './hints.js'
import { type Command, errorLine, type FailedProcess, runProcess } from './run-process.js'

/** Receives the number of bytes done and in total, a few times a second. */
export type OnBytes = (done: number, total: number) => void

export interface DownloadOptions {
  readonly pip: Command
  /** An empty folder of this set-up; the wheels are written to `<folder>/wheels`. */
  readonly folder: string
  readonly env: NodeJS.ProcessEnv
  readonly signal?: AbortSignal | undefined
  readonly onBytes: OnBytes
}

// Older releases of pip print no progress that a program can read: the size of the folder serves instead.
const watchBytes = async <A>(folder: string, total: number, onBytes: OnBytes, work: () => Promise<A>): Promise<A> => {
  let finished = false
  const report = async (): Promise<void> => {
    const bytes = await folderBytes(folder)
    if (!finished) onBytes(Math.min(bytes, total), total)
  }
  const timer = setInterval(report, 200)
  return work().finally(() => {
    finished = true
    clearInterval(timer)
  })
}

const unreachable = /connection broken|ConnectionError|NameResolution|Temporary failure|timed? ?out/i

const downloadIssue =
  (subject: string) =>
  (failed: FailedProcess): Issues => {
    // without a connection, pip's last line is "no matching distribution", which misleads
    const reason = unreachable.test(failed.stderr) ? 'its index cannot be reached' : errorLine(failed)
    const message = `pip could not download ${subject} (${reason}); once it can, run \`${setupHint}\``
    return [issue('DownloadFailed', message, { subject, fix: setupHint })]
  }

const pipFlags = ['--quiet', '--no-input', '--disable-pip-version-check', '--progress-bar', 'off', '--no-cache-dir', '--no-deps']
const cpython = ['--only-binary=:all:', '--implementation', 'cp', '--python-version', '3.11']

/** Downloads exactly the named wheels, for CPython 3.11 and platform `tags`, with the user's pip and its settings. Returns their paths. */
export const pipDownload = (
  requirements: readonly string[],
  tags: readonly string[],
  total: number,
  { pip, folder, env, signal, onBytes }: DownloadOptions
): TE.TaskEither<Issues, readonly string[]> => {
  const [wheels, tmp] = [join(folder, 'wheels'), join(folder, 'tmp')]
  const platforms = tags.flatMap((tag) => ['--platform', tag])
  const args = ['download', ...pipFlags, ...cpython, ...platforms, '--dest', wheels, ...requirements]
  const settings = { ...env, TMPDIR: tmp, PIP_RETRIES: env.PIP_RETRIES ?? '2' } // without a network, pip fails in seconds
  return pipe(
    TE.fromTask(() => Promise.all([wheels, tmp].map((path) => mkdir(path, { recursive: true })))),
    TE.chain(() => () => watchBytes(folder, total, onBytes, runProcess(pip, args, { env: settings, signal }))),
    TE.mapLeft(downloadIssue(requirements[0] ?? '')),
    TE.chainTaskK(
      () => async () => (await readdir(wheels)).filter((name) => name.endsWith('.whl')).map((name) => join(wheels, name))
    )
  )
}

const pipConfig = 'pip config list'

/** Right where each file's SHA-256 is one of the pinned hashes; an issue for every other file. `title` names the package. */
export const checkWheels =
  (title: string, pins: readonly string[]) =>
  (paths: readonly string[]): TE.TaskEither<Issues, readonly string[]> => {
    const check =
      (path: string): TE.TaskEither<Issues, string> =>
      async () => {
        const [actual, { size }] = await Promise.all([hashFile(path), stat(path)])
        const expected = pins.length === 1 ? pins[0] : 'a pinned one'
        const message = `${title}: ${basename(path)}, which pip downloaded, has SHA-256 ${actual} (${size} bytes), not ${expected}; nothing was kept. Check which index pip uses: \`${pipConfig}\``
        return pins.includes(actual) ? E.right(path) : invalid('WrongHash', message, { expected: pins, actual, fix: pipConfig })
      }
    return pipe(paths, RA.traverse(taskValidation)(check))
  }
