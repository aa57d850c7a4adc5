import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issue, type Issues, issue } from '../../lib/error.js'
import { indexFile, wholeFile } from '../../lib/safetensors/read.js'
import { findCached, repoFolder, snapshotFolder, writeRef } from './hub-cache.js'
import { diskIssue, thrown } from './hub-errors.js'
import { isSetting, type RemoteFile, shardsOf } from './hub-files.js'
import { type HubOptions, type Settings, settle } from './hub-settings.js'
import { defaultHub, listCommit, resolveRevision } from './remote.js'
import { badName, isRepoName, revisionIssues } from './repo-name.js'
import { type Job, transfer } from './transfer.js'

/** A commit of a repository in the cache, ready to be opened. */
export interface Snapshot {
  readonly repo: string
  readonly commit: string
  /** Its files under their own names. */
  readonly folder: string
}

/** What a repository must hold to be a checkpoint, and does not. */
const lacks = (repo: string, files: readonly RemoteFile[]): readonly Issue[] => {
  const has = (name: string) => files.some(({ path }) => path === name)
  const lack = (what: string) => issue('HubNoCheckpoint', `${repo}: the repository has no ${what}; is it a checkpoint?`, { repo })
  const other = files.find(({ path }) => /\.(bin|pth|gguf|onnx|safetensors)$/.test(path))
  const weights = `${wholeFile} and no ${indexFile}${other ? ` (but ${other.path})` : ''}`
  return [...(has('config.json') ? [] : [lack('config.json')]), ...(has(wholeFile) || has(indexFile) ? [] : [lack(weights)])]
}

const refuse = (issues: readonly Issue[]): void => {
  const [first, ...rest] = issues
  if (first) throw thrown(first, ...rest)
}

/** The weights: one file, else the shards that the index names, for which it is fetched first. */
const weightsOf = async (job: Job, files: readonly RemoteFile[]): Promise<readonly RemoteFile[]> => {
  const whole = files.filter(({ path }) => path === wholeFile)
  if (whole.length > 0) return whole
  const index = files.filter(({ path }) => path === indexFile)
  await transfer(job, index)
  const names = await shardsOf(join(snapshotFolder(job.store, job.commit), indexFile))
  const gone = names.filter((name) => files.every(({ path }) => path !== name))
  const { repo } = job
  refuse(
    gone.map((file) =>
      issue('HubShardMissing', `${repo}: ${indexFile} names ${JSON.stringify(file)}, which the repository does not have`, {
        repo,
        file
      })
    )
  )
  return [...index, ...files.filter(({ path }) => names.includes(path))]
}

const fromHub = async (repo: string, store: string, commit: string, settings: Settings): Promise<Snapshot> => {
  const job: Job = { repo, commit, store, settings }
  const files = await listCommit(repo, commit, settings)
  refuse(lacks(repo, files))
  await transfer(job, [...(await weightsOf(job, files)), ...files.filter(({ path }) => isSetting(path))])
  // last, so that a branch always names a commit that is whole here
  await writeRef(store, settings.revision, commit)
  return { repo, commit, folder: snapshotFolder(store, commit) }
}

/** What the cache knows of the revision, for `why` nobody can be asked. */
const fromCache = async (repo: string, store: string, why: string, settings: Settings): Promise<Snapshot> => {
  const { revision, onRemark } = settings
  const cached = await findCached(store, revision)
  if (cached && cached.missing.length === 0) {
    onRemark(`${why}; using what is cached of ${repo}, commit ${cached.commit.slice(0, 7)}`)
    return { repo, commit: cached.commit, folder: cached.folder }
  }
  const part = cached ? `lacks ${cached.missing.join(', ')} of it` : 'does not hold it'
  const message = `${why}, and the cache at ${settings.cacheDir} ${part} (${repo}, revision ${revision}); download it once with a network, or set HF_HUB_CACHE to the cache that has it`
  throw thrown(issue('NotCached', message, { repo, revision, folder: settings.cacheDir }))
}

const unasked: readonly string[] = ['HubUnreachable', 'HubBusy', 'HubDown', 'HubForbidden']

/** A cache may serve where the hub does not: there is no network, it has an error, or the token has run out. */
const download = async (repo: string, settings: Settings): Promise<Snapshot> => {
  const store = repoFolder(settings.cacheDir, repo)
  if (settings.offline) return fromCache(repo, store, 'offline, as asked', settings)
  try {
    return await fromHub(repo, store, await resolveRevision(repo, settings), settings)
  } catch (error) {
    if (!(error instanceof InternVLError)) throw error
    const [first] = error.issues
    const cached = unasked.includes(first._tag) ? await findCached(store, settings.revision) : undefined
    if (cached?.missing.length === 0 || first._tag === 'HubUnreachable') return fromCache(repo, store, first.message, settings)
    throw error
  }
}

/** An error of the file system: it names the call that failed. */
const isSystem = (error: unknown): boolean => error instanceof Error && 'syscall' in error && 'path' in error

/**
 * Brings a repository of the hub into the cache that Python's huggingface_hub shares, only the files that opening it needs, and
 * tells where they are. What is there already is not fetched again; what was broken off goes on. Offline, by wish or for want of a
 * network, what is cached is used and said. A call that `signal` ends is rejected with its reason.
 * Errors: `BadModelName`, `BadRevision`, `NotCached`, `HubNoCheckpoint`, `HubShardMissing`, `HubStrange`, and those of `answerFault`
 * and `fetchBlob`.
 */
export const snapshotDownload =
  (repo: string, options: HubOptions = {}): TaskEither<Issues, Snapshot> =>
  async () => {
    const settings = await settle(options, defaultHub)
    const [wrong, ...more] = [...(isRepoName(repo) ? [] : [badName(repo)]), ...revisionIssues(settings.revision)]
    if (wrong) return E.left([wrong, ...more])
    try {
      return E.right(await download(repo, settings))
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.issues)
      if (isSystem(error)) return E.left([diskIssue(error, settings.cacheDir)])
      throw error
    }
  }
