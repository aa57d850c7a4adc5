import { mkdir, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { issue } from '../../lib/error.js'
import { fetchBlob } from './blob.js'
import { pointTo, sizeOf, snapshotFolder } from './hub-cache.js'
import { diskIssue, thrown } from './hub-errors.js'
import type { RemoteFile } from './hub-files.js'
import type { Settings } from './hub-settings.js'

/** A commit that is brought into the cache: `store` is the repository's folder there. */
export interface Job {
  readonly repo: string
  readonly commit: string
  readonly store: string
  readonly settings: Settings
}

const pointerOf = ({ store, commit }: Job, { path }: RemoteFile): string => join(snapshotFolder(store, commit), path)
const blobOf = ({ store }: Job, { etag }: RemoteFile): string => join(store, 'blobs', etag)

/** The files that are not in the snapshot yet, or of another size there; one whose blob another commit brought needs only its link. */
const absentOf = async (job: Job, files: readonly RemoteFile[]): Promise<readonly RemoteFile[]> => {
  const absent: RemoteFile[] = []
  for (const file of files) {
    if ((await sizeOf(pointerOf(job, file))) === file.size) continue
    if ((await sizeOf(blobOf(job, file))) === file.size) await pointTo(blobOf(job, file), pointerOf(job, file))
    else absent.push(file)
  }
  return absent
}

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`

/** Fails before the first byte where the disk cannot hold them all. */
const checkRoom = async (store: string, files: readonly RemoteFile[]): Promise<void> => {
  const needed = files.reduce((n, { size }) => n + size, 0)
  const { bavail, bsize, blocks } = await statfs(store)
  const free = bavail * bsize
  if (blocks === 0 || free >= needed) return // some file systems count nothing
  const message = `${store}: ${megabytes(needed)} are to be downloaded, ${megabytes(free)} are free; make room, or set HF_HUB_CACHE to another folder`
  throw thrown(issue('DiskFull', message, { folder: store, needed, free }))
}

/** Progress of each file turned into that of all. */
const reporter = (files: readonly RemoteFile[], { onDownload }: Settings) => {
  const allTotal = files.reduce((n, { size }) => n + size, 0)
  const done = new Map<string, number>()
  return ({ path, size }: RemoteFile) =>
    (bytes: number): void => {
      done.set(path, bytes)
      const allDone = [...done.values()].reduce((a, b) => a + b, 0)
      onDownload({ file: path, done: bytes, total: size, allDone, allTotal })
    }
}

const workers = 4

/** Runs `work` on each item, a few at a time; the first failure ends the others, and is thrown when they have ended. */
const each = async <A>(items: readonly A[], work: (item: A) => Promise<void>, stop: () => void): Promise<void> => {
  const queue = items.values()
  const run = async (): Promise<void> => {
    for (const item of queue) await work(item)
  }
  const runs = Array.from({ length: workers }, run)
  await Promise.all(runs).catch(async (error: unknown) => {
    stop()
    await Promise.allSettled(runs)
    throw error
  })
}

/** Brings files into the snapshot: those that are not there are downloaded, each blob verified before its name appears. */
export const transfer = async (job: Job, files: readonly RemoteFile[]): Promise<void> => {
  const { repo, commit, store, settings } = job
  await mkdir(join(store, 'blobs'), { recursive: true }).catch((error: unknown) => {
    throw thrown(diskIssue(error, store))
  })
  const absent = await absentOf(job, files)
  await checkRoom(store, absent)
  const stop = new AbortController()
  const signal = settings.signal ? AbortSignal.any([settings.signal, stop.signal]) : stop.signal
  const report = reporter(absent, settings)
  const bring = async (file: RemoteFile): Promise<void> => {
    const url = `${settings.endpoint}/${repo}/resolve/${commit}/${encodeURIComponent(file.path)}`
    await fetchBlob({ repo, file, url }, blobOf(job, file), { ...settings, signal }, report(file))
    await pointTo(blobOf(job, file), pointerOf(job, file))
  }
  await each(absent, bring, () => stop.abort())
}
