import { mkdir, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { issue } from '../../lib/error.js'
import { fetchBlob } from './blob.js'
import { linkBlob, sizeOf, snapshotFolder } from './hub-cache.js'
import { diskIssue, hubError } from './hub-errors.js'
import type { RemoteFile } from './hub-files.js'
import type { HubSettings } from './hub-settings.js'

/** Download of a commit to the cache; `store` is the folder of the repository there. */
export interface Job {
  readonly repo: string
  readonly commit: string
  readonly store: string
  readonly settings: HubSettings
}

const pointerOf = ({ store, commit }: Job, { path }: RemoteFile): string => join(snapshotFolder(store, commit), path)
const blobOf = ({ store }: Job, { etag }: RemoteFile): string => join(store, 'blobs', etag)

/** The files that the snapshot lacks or has with another size. A file whose blob is cached by another commit is only linked. */
const missingOf = async (job: Job, files: readonly RemoteFile[]): Promise<readonly RemoteFile[]> => {
  const absent: RemoteFile[] = []
  for (const file of files) {
    if ((await sizeOf(pointerOf(job, file))) === file.size) continue
    if ((await sizeOf(blobOf(job, file))) === file.size) await linkBlob(blobOf(job, file), pointerOf(job, file))
    else absent.push(file)
  }
  return absent
}

const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`

/** Fails before the first byte if the disk has too little space for all files. */
const checkDiskSpace = async (store: string, files: readonly RemoteFile[]): Promise<void> => {
  const needed = files.reduce((n, { size }) => n + size, 0)
  const { bavail, bsize, blocks } = await statfs(store)
  const free = bavail * bsize
  if (blocks === 0 || free >= needed) return // some file systems report no sizes
  const message = `${store}: the download needs ${megabytes(needed)}, ${megabytes(free)} are free; free some space, or set HF_HUB_CACHE to another folder`
  throw hubError(issue('DiskFull', message, { folder: store, needed, free }))
}

/** Reports the progress of each file together with that of all files. */
const reporter = (files: readonly RemoteFile[], { onDownload }: HubSettings) => {
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

/** Runs `work` on each item, four at a time; the first failure stops the others and is thrown when they have ended. */
const forEachConcurrently = async <A>(items: readonly A[], work: (item: A) => Promise<void>, stop: () => void): Promise<void> => {
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

/** Downloads the missing files of a snapshot; each blob is verified before its name appears. */
export const transfer = async (job: Job, files: readonly RemoteFile[]): Promise<void> => {
  const { repo, commit, store, settings } = job
  await mkdir(join(store, 'blobs'), { recursive: true }).catch((error: unknown) => {
    throw hubError(diskIssue(error, store))
  })
  const absent = await missingOf(job, files)
  await checkDiskSpace(store, absent)
  const stop = new AbortController()
  const signal = settings.signal ? AbortSignal.any([settings.signal, stop.signal]) : stop.signal
  const report = reporter(absent, settings)
  const downloadFile = async (file: RemoteFile): Promise<void> => {
    const url = `${settings.endpoint}/${repo}/resolve/${commit}/${encodeURIComponent(file.path)}`
    await fetchBlob({ repo, file, url }, blobOf(job, file), { ...settings, signal }, report(file))
    await linkBlob(blobOf(job, file), pointerOf(job, file))
  }
  await forEachConcurrently(absent, downloadFile, () => stop.abort())
}
