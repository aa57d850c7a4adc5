import { mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../error.js'
import { folderBytes, hashFile } from './engine-folder.js'
import { setupHint } from './hints.js'
import { type Command, complaint, type Failed, run } from './process.js'
import type { Wheel } from './setup-plan.js'

/** Told a few times a second how many bytes of how many are there. */
export type OnBytes = (done: number, total: number) => void

export interface DownloadOptions {
  readonly pip: Command
  /** An empty folder of this set-up; the wheels come to lie in `<folder>/wheels`. */
  readonly folder: string
  readonly env: NodeJS.ProcessEnv
  readonly signal?: AbortSignal | undefined
  readonly onBytes: OnBytes
}

// pip's own progress can be read by no program in its older releases: the bytes that grow below the folder can.
const watched = async <A>(folder: string, total: number, onBytes: OnBytes, work: () => Promise<A>): Promise<A> => {
  let over = false
  const look = async (): Promise<void> => {
    const bytes = await folderBytes(folder)
    if (!over) onBytes(Math.min(bytes, total), total)
  }
  const timer = setInterval(look, 200)
  return work().finally(() => {
    over = true
    clearInterval(timer)
  })
}

const unreachable = /connection broken|ConnectionError|NameResolution|Temporary failure|timed? ?out/i

const downloadIssue =
  (what: string) =>
  (failed: Failed): Issues => {
    // without a connection pip ends on "no matching distribution", which is not what is wrong
    const reason = unreachable.test(failed.stderr) ? 'its index cannot be reached' : complaint(failed)
    const message = `pip could not download ${what} (${reason}); once it can, run \`${setupHint}\``
    return [issue('DownloadFailed', message, { what, mend: setupHint })]
  }

/** Downloads exactly the named wheels, for CPython 3.11 on `tags`, by the user's own pip with the user's own settings; their paths. */
export const pipDownload = (
  requirements: readonly string[],
  tags: readonly string[],
  total: number,
  { pip, folder, env, signal, onBytes }: DownloadOptions
): TE.TaskEither<Issues, readonly string[]> => {
  const [wheels, tmp] = [join(folder, 'wheels'), join(folder, 'tmp')]
  const quiet = ['--quiet', '--no-input', '--disable-pip-version-check', '--progress-bar', 'off', '--no-cache-dir']
  const target = [
    '--only-binary=:all:',
    '--implementation',
    'cp',
    '--python-version',
    '3.11',
    ...tags.flatMap((tag) => ['--platform', tag])
  ]
  const settings = { ...env, TMPDIR: tmp, PIP_RETRIES: env.PIP_RETRIES ?? '2' } // offline is told in seconds
  return pipe(
    TE.fromTask(() => Promise.all([wheels, tmp].map((path) => mkdir(path, { recursive: true })))),
    TE.chain(
      () => () =>
        watched(
          folder,
          total,
          onBytes,
          run(pip, ['download', ...quiet, ...target, '--no-deps', '--dest', wheels, ...requirements], { env: settings, signal })
        )
    ),
    TE.mapLeft(downloadIssue(requirements[0] ?? '')),
    TE.chainTaskK(
      () => async () => (await readdir(wheels)).filter((name) => name.endsWith('.whl')).map((name) => join(wheels, name))
    )
  )
}

/** Right when the file is the pinned wheel, bit for bit. */
export const checkWheel =
  (wheel: Wheel) =>
  (path: string): TE.TaskEither<Issues, string> =>
  async () => {
    const [actual, { size }] = await Promise.all([hashFile(path), stat(path)])
    const message = `${wheel.name} ${wheel.version}: the wheel that pip downloaded has SHA-256 ${actual} (${size} bytes), not ${wheel.sha256}; nothing was kept. Is pip's index the one you mean? \`pip config list\``
    return actual === wheel.sha256
      ? E.right(path)
      : E.left([issue('WrongHash', message, { expected: wheel.sha256, actual, mend: 'pip config list' })])
  }
