import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issue, type Issues, issue } from '../../lib/error.js'
import { indexFile, wholeFile } from '../../lib/safetensors/read.js'
import { findCached, repoFolder, snapshotFolder, writeRef } from './hub-cache.js'
import { diskIssue, hubError } from './hub-errors.js'
import { isConfigFile, type RemoteFile, shardsOf } from './hub-files.js'
import { type HubOptions, type HubSettings, resolveSettings } from './hub-settings.js'
import { defaultHub, listCommit, resolveRevision } from './remote.js'
import { badName, isRepoName, revisionIssues } from './repo-name.js'
import { type Job, transfer } from './transfer.js'

/** A complete commit of a repository in the cache. */
export interface Snapshot {
  readonly repo: string
  readonly commit: string
  /** Its files under their own names. */
  readonly folder: string
}

/** Issues of a repository without the files of a checkpoint. */
const checkpointIssues = (repo: string, files: readonly RemoteFile[]): readonly Issue[] => {
  const has = (name: string) => files.some(({ path }) => path === name)
  const lack = (what: string) =>
    issue('HubNoCheckpoint', `${repo}: the repository has no ${what}; use a repository with a checkpoint`, { repo })
  const other = files.find(({ path }) => /\.(bin|pth|gguf|onnx|safetensors)$/.test(path))
  const weights = `${wholeFile} and no ${indexFile}${other ? ` (but ${other.path})` : ''}`
  return [...(has('config.json') ? [] : [lack('config.json')]), ...(has(wholeFile) || has(indexFile) ? [] : [lack(weights)])]
}

const throwIssues = (issues: readonly Issue[]): void => {
  const [first, ...rest] = issues
  if (first) throw hubError(first, ...rest)
}

/** The weight files: one file, or else the index, which is downloaded first, and its shards. */
const weightsOf = async (job: Job, files: readonly RemoteFile[]): Promise<readonly RemoteFile[]> => {
  const whole = files.filter(({ path }) => path === wholeFile)
  if (whole.length > 0) return whole
  const index = files.filter(({ path }) => path === indexFile)
  await transfer(job, index)
  const names = await shardsOf(join(snapshotFolder(job.store, job.commit), indexFile))
  const missing = names.filter((name) => files.every(({ path }) => path !== name))
  const { repo } = job
  throwIssues(
    missing.map((file) =>
      issue('HubShardMissing', `${repo}: ${indexFile} names ${JSON.stringify(file)}, which the repository does not have`, {
        repo,
        file
      })
    )
  )
  return [...index, ...files.filter(({ path }) => names.includes(path))]
}

const fetchSnapshot = async (repo: string, store: string, commit: string, settings: HubSettings): Promise<Snapshot> => {
  const job: Job = { repo, commit, store, settings }
  const files = await listCommit(repo, commit, settings)
  throwIssues(checkpointIssues(repo, files))
  await transfer(job, [...(await weightsOf(job, files)), ...files.filter(({ path }) => isConfigFile(path))])
  // last, so that a branch always refers to a complete commit
  await writeRef(store, settings.revision, commit)
  return { repo, commit, folder: snapshotFolder(store, commit) }
}

/** The cached snapshot of the revision; `why` is the reason that the hub is not used. */
const cachedSnapshot = async (repo: string, store: string, why: string, settings: HubSettings): Promise<Snapshot> => {
  const { revision, onWarning } = settings
  const cached = await findCached(store, revision)
  if (cached && cached.missing.length === 0) {
    onWarning(`${why}; using the cached commit ${cached.commit.slice(0, 7)} of ${repo}`)
    return { repo, commit: cached.commit, folder: cached.folder }
  }
  const part = cached ? `lacks ${cached.missing.join(', ')}` : 'does not have it'
  const message = `${why}, and the cache at ${settings.cacheDir} ${part} (${repo}, revision ${revision}); download the model once with a network, or set HF_HUB_CACHE to a cache that has it`
  throw hubError(issue('NotCached', message, { repo, revision, folder: settings.cacheDir }))
}

const cacheFallback: readonly string[] = ['HubUnreachable', 'HubBusy', 'HubDown', 'HubForbidden']

/** The snapshot from the hub, or from the cache if there is no network, the hub has an error, or the token has expired. */
const findSnapshot = async (repo: string, settings: HubSettings): Promise<Snapshot> => {
  const store = repoFolder(settings.cacheDir, repo)
  if (settings.offline) return cachedSnapshot(repo, store, 'offline mode', settings)
  try {
    return await fetchSnapshot(repo, store, await resolveRevision(repo, settings), settings)
  } catch (error) {
    if (!(error instanceof InternVLError)) throw error
    const [first] = error.issues
    const cached = cacheFallback.includes(first._tag) ? await findCached(store, settings.revision) : undefined
    if (cached?.missing.length === 0 || first._tag === 'HubUnreachable')
      return cachedSnapshot(repo, store, first.message, settings)
    throw error
  }
}

/** Whether an error is of the file system. */
const isSystemError = (error: unknown): boolean => error instanceof Error && 'syscall' in error && 'path' in error

/**
 * Downloads the files of a repository that loading needs into the cache of Python's huggingface_hub. Cached files are not
 * downloaded again, and partial downloads are resumed. Offline, by option or without a network, the cache is used with a
 * warning. An aborted `signal` rejects with its reason.
 * Errors: `BadModelName`, `BadRevision`, `NotCached`, `HubNoCheckpoint`, `HubShardMissing`, `HubStrange`, and those of `responseIssue`
 * and `fetchBlob`.
 */
export const snapshotDownload =
  (repo: string, options: HubOptions = {}): TaskEither<Issues, Snapshot> =>
  async () => {
    const settings = await resolveSettings(options, defaultHub)
    const [wrong, ...more] = [...(isRepoName(repo) ? [] : [badName(repo)]), ...revisionIssues(settings.revision)]
    if (wrong) return E.left([wrong, ...more])
    try {
      return E.right(await findSnapshot(repo, settings))
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.issues)
      if (isSystemError(error)) return E.left([diskIssue(error, settings.cacheDir)])
      throw error
    }
  }
