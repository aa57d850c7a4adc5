import { open, rename, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { hashFile } from '../../lib/engines/install/engine-folder.js'
import { InternVLError, issue } from '../../lib/error.js'
import { sizeOf } from './hub-cache.js'
import { backoffDelay, hubFetch, maxAttempts, pause } from './hub-client.js'
import { diskIssue, hubError, unreachable } from './hub-errors.js'
import type { RemoteFile } from './hub-files.js'
import type { HubSettings } from './hub-settings.js'
import { claimPartial, sweepPartials } from './partial.js'

/** A file of a repository with its download URL. */
export interface BlobSource {
  readonly repo: string
  readonly file: RemoteFile
  readonly url: string
}

/** Called with the number of bytes of the file on disk. */
type OnBytes = (done: number) => void

const onDisk = <A>(path: string, work: Promise<A>): Promise<A> =>
  work.catch((error: unknown) => {
    throw hubError(diskIssue(error, dirname(dirname(path))))
  })

/** Offset of a response in the file: 0 if the server ignores the range header. */
const rangeStart = (response: Response): number =>
  response.status === 206 ? Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] ?? Number.NaN) : 0

const tooLong = async ({ repo, file }: BlobSource, path: string): Promise<InternVLError> => {
  await rm(path, { force: true })
  const message = `${repo}/${file.path}: the server sends more bytes than the ${file.size} that the hub lists; the download was deleted, try again later`
  return hubError(issue('HubWrongSize', message, { repo, file: file.path, expected: file.size }))
}

/** Requests the missing bytes of the file at `path` and appends them; a body that ends early is not an error here. */
const appendMissing = async (source: BlobSource, path: string, settings: HubSettings, onBytes: OnBytes): Promise<void> => {
  const { repo, file, url } = source
  const size = (await sizeOf(path)) ?? 0
  const headers: Record<string, string> = size > 0 ? { range: `bytes=${size}-` } : {}
  const response = await hubFetch({ repo, file: file.path }, { ...settings, retryOffline: true })(url, { headers })
  const begin = rangeStart(response)
  if (begin !== size && begin !== 0) {
    await response.body?.cancel()
    throw new Error(`the server sent bytes from ${begin}, requested were bytes from ${size}`)
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

/** Downloads the file at `path` completely, through broken connections; gives up after several attempts without a new byte. */
const fillFile = async (source: BlobSource, path: string, settings: HubSettings, onBytes: OnBytes): Promise<void> => {
  const { file, repo } = source
  if (((await sizeOf(path)) ?? Number.POSITIVE_INFINITY) > file.size) await onDisk(path, writeFile(path, ''))
  for (let idle = 0, have = (await sizeOf(path)) ?? 0; have < file.size; ) {
    onBytes(have)
    const failure = await appendMissing(source, path, settings, onBytes).then(
      () => 'the connection ended early',
      (error: unknown) => error
    )
    settings.signal?.throwIfAborted()
    if (failure instanceof InternVLError) throw failure
    const now = (await sizeOf(path)) ?? 0
    idle = now > have ? 0 : idle + 1
    if (idle === maxAttempts) throw hubError(unreachable({ repo, file: file.path }, failure, settings))
    if (now < file.size) await pause(backoffDelay(settings, Math.max(0, idle - 1)), settings)
    have = now
  }
  onBytes(file.size)
}

const actualHash = async ({ file }: BlobSource, path: string): Promise<string | undefined> =>
  file.sha256 === undefined ? undefined : hashFile(path)

/** Downloads and verifies the file. A wrong hash deletes the file; a resumed download is repeated once from the start. */
const fillVerified = async (source: BlobSource, path: string, settings: HubSettings, onBytes: OnBytes): Promise<void> => {
  const { repo, file } = source
  for (let last = false; ; last = true) {
    await fillFile(source, path, settings, onBytes)
    const actual = await actualHash(source, path)
    if (actual === file.sha256) return
    await rm(path, { force: true })
    const message = `${repo}/${file.path}: its SHA-256 is ${actual}, the hub lists ${file.sha256}; the download was deleted, check for a proxy that changes files`
    if (last) throw hubError(issue('HubWrongHash', message, { repo, file: file.path, expected: file.sha256, actual }))
  }
}

/**
 * Downloads a file to `blob` and resumes a broken or killed download; `blob` appears complete and verified, or not at all.
 * Throws an `InternVLError`: `HubWrongSize`, `HubWrongHash`, `HubUnreachable`, `DiskFull`, `CacheUnwritable` and those of `hubFetch`;
 * except after a wrong size or hash, the bytes on disk are kept for the next attempt.
 */
export const fetchBlob = async (source: BlobSource, blob: string, settings: HubSettings, onBytes: OnBytes): Promise<void> => {
  const { path, close } = await claimPartial(blob)
  try {
    await fillVerified(source, path, settings, onBytes)
    await onDisk(blob, rename(path, blob))
    await sweepPartials(blob)
  } finally {
    close()
  }
}
