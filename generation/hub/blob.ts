import { open, rename, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { hashFile } from '../../lib/engines/install/engine-folder.js'
import { InternVLError, issue } from '../../lib/error.js'
import { sizeOf } from './hub-cache.js'
import { ask, attempts, backoffOf, pause } from './hub-client.js'
import { diskIssue, thrown, unreachable } from './hub-errors.js'
import type { RemoteFile } from './hub-files.js'
import type { Settings } from './hub-settings.js'
import { claimPartial, sweepPartials } from './partial.js'

/** A file of a repository, where it is and where it shall lie. */
export interface BlobSource {
  readonly repo: string
  readonly file: RemoteFile
  readonly url: string
}

/** Told how many bytes of the file are there. */
type OnBytes = (done: number) => void

const onDisk = <A>(path: string, work: Promise<A>): Promise<A> =>
  work.catch((error: unknown) => {
    throw thrown(diskIssue(error, dirname(dirname(path))))
  })

/** Where an answer begins in the file: a server that knows no ranges sends it from its first byte. */
const beginOf = (response: Response): number =>
  response.status === 206 ? Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] ?? Number.NaN) : 0

const tooLong = async ({ repo, file }: BlobSource, path: string): Promise<InternVLError> => {
  await rm(path, { force: true })
  const message = `${repo}/${file.path}: more bytes come than the ${file.size} that the hub lists; nothing was kept, try again later`
  return thrown(issue('HubWrongSize', message, { repo, file: file.path, expected: file.size }))
}

/** Asks for what is missing of the file at `path` and appends it as it comes; a body that ends early is no error here. */
const append = async (source: BlobSource, path: string, settings: Settings, onBytes: OnBytes): Promise<void> => {
  const { repo, file, url } = source
  const have = (await sizeOf(path)) ?? 0
  const headers: Record<string, string> = have > 0 ? { range: `bytes=${have}-` } : {}
  const response = await ask({ repo, file: file.path }, { ...settings, patient: true })(url, { headers })
  const begin = beginOf(response)
  if (begin !== have && begin !== 0) {
    await response.body?.cancel()
    throw new Error(`it sent bytes from ${begin} on, asked for those from ${have}`)
  }
  const handle = await onDisk(path, open(path, begin === 0 ? 'w' : 'a'))
  try {
    let done = begin
    for await (const chunk of response.body ?? []) {
      await onDisk(path, handle.writeFile(chunk))
      done += chunk.length
      if (done > file.size) throw await tooLong(source, path)
      onBytes(done)
    }
    await onDisk(path, handle.datasync())
  } finally {
    await handle.close()
  }
}

/** Fills the file at `path`, through broken connections, until it is whole; gives up when several in a row brought no byte. */
const fill = async (source: BlobSource, path: string, settings: Settings, onBytes: OnBytes): Promise<void> => {
  const { file, repo } = source
  if (((await sizeOf(path)) ?? Number.POSITIVE_INFINITY) > file.size) await onDisk(path, writeFile(path, ''))
  for (let idle = 0, have = (await sizeOf(path)) ?? 0; have < file.size; ) {
    onBytes(have)
    const failure = await append(source, path, settings, onBytes).then(
      () => 'the connection ended early',
      (error: unknown) => error
    )
    settings.signal?.throwIfAborted()
    if (failure instanceof InternVLError) throw failure
    const now = (await sizeOf(path)) ?? 0
    idle = now > have ? 0 : idle + 1
    if (idle === attempts) throw thrown(unreachable({ repo, file: file.path }, failure, settings))
    if (now < file.size) await pause(backoffOf(settings, Math.max(0, idle - 1)), settings)
    have = now
  }
  onBytes(file.size)
}

const actualHash = async ({ file }: BlobSource, path: string): Promise<string | undefined> =>
  file.sha256 === undefined ? undefined : hashFile(path)

/** Fills and checks; bytes that are not those that the hub lists are thrown away, and an old part of them asked for once more. */
const fillRight = async (source: BlobSource, path: string, settings: Settings, onBytes: OnBytes): Promise<void> => {
  const { repo, file } = source
  for (let last = false; ; last = true) {
    await fill(source, path, settings, onBytes)
    const actual = await actualHash(source, path)
    if (actual === file.sha256) return
    await rm(path, { force: true })
    const message = `${repo}/${file.path}: its SHA-256 is ${actual}, the hub lists ${file.sha256}; nothing was kept, does something in between change it?`
    if (last) throw thrown(issue('HubWrongHash', message, { repo, file: file.path, expected: file.sha256, actual }))
  }
}

/**
 * Downloads a file to `blob`, going on where a broken or killed download stopped; `blob` appears whole and verified, or not at all.
 * Throws an `InternVLError`: `HubWrongSize`, `HubWrongHash`, `HubUnreachable`, `DiskFull`, `CacheUnwritable` and those of `ask`;
 * but for the wrong, what has arrived is kept for the next attempt.
 */
export const fetchBlob = async (source: BlobSource, blob: string, settings: Settings, onBytes: OnBytes): Promise<void> => {
  const { path, close } = await claimPartial(blob)
  try {
    await fillRight(source, path, settings, onBytes)
    await onDisk(blob, rename(path, blob))
    await sweepPartials(blob)
  } finally {
    close()
  }
}
