import { HUB_URL, listFiles, modelInfo } from '@huggingface/hub'
import { InternVLError, type Issue, issue } from '../../lib/error.js'
import { ask } from './hub-client.js'
import { thrown, unreachable } from './hub-errors.js'
import type { RemoteFile } from './hub-files.js'
import type { Settings } from './hub-settings.js'

/** The address of the hub where nothing else is set. */
export const defaultHub: string = HUB_URL

const isHash = (text: unknown): text is string => typeof text === 'string' && /^[\w-]+$/.test(text) // it becomes a name in the cache

const strange = (repo: string, what: string, { endpoint }: Settings): Issue =>
  issue('HubStrange', `${repo}: ${endpoint} does not tell ${what}; is it a hub? HF_ENDPOINT sets its address`, { repo })

/** An answer that is no JSON, such as a page to log in, or that breaks off, as an error. */
const readAnswer = async <A>(repo: string, what: string, settings: Settings, read: () => Promise<A>): Promise<A> =>
  read().catch((error: unknown) => {
    settings.signal?.throwIfAborted()
    if (error instanceof InternVLError) throw error
    throw thrown(error instanceof SyntaxError ? strange(repo, what, settings) : unreachable({ repo }, error, settings))
  })

const collect = async <A>(items: AsyncIterable<A>): Promise<readonly A[]> => {
  const all: A[] = []
  for await (const item of items) all.push(item)
  return all
}

/** The commit that the revision names now. */
export const resolveRevision = async (repo: string, settings: Settings): Promise<string> => {
  const { revision, endpoint: hubUrl } = settings
  const what = `which commit ${revision} is`
  const fetch = ask({ repo }, settings)
  const { sha } = await readAnswer(repo, what, settings, () =>
    modelInfo({ name: repo, revision, hubUrl, fetch, additionalFields: ['sha'] })
  )
  if (!isHash(sha)) throw thrown(strange(repo, what, settings))
  return sha
}

/** The files of a commit, folders left out: a checkpoint has none. */
export const listCommit = async (repo: string, commit: string, settings: Settings): Promise<readonly RemoteFile[]> => {
  const what = 'its files with their sizes and hashes'
  const fetch = ask({ repo }, settings)
  const entries = await readAnswer(repo, what, settings, () =>
    collect(listFiles({ repo, revision: commit, hubUrl: settings.endpoint, fetch }))
  )
  const files = entries.filter(({ type, path }) => type === 'file' && !path.includes('/'))
  return files.map(({ path, size, oid, lfs }) => {
    const etag = lfs?.oid ?? oid
    if (!isHash(etag) || !Number.isSafeInteger(size)) throw thrown(strange(repo, what, settings))
    return { path, etag, size: lfs?.size ?? size, sha256: /^[0-9a-f]{64}$/.test(lfs?.oid ?? '') ? lfs?.oid : undefined }
  })
}
