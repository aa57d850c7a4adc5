import { HUB_URL, listFiles, modelInfo } from '@huggingface/hub'
import { InternVLError, type Issue, issue } from '../../lib/error.js'
import { hubFetch } from './hub-client.js'
import { hubError, unreachable } from './hub-errors.js'
import type { RemoteFile } from './hub-files.js'
import type { HubSettings } from './hub-settings.js'

/** URL of the public hub. */
export const defaultHub: string = HUB_URL

const isHash = (text: unknown): text is string => typeof text === 'string' && /^[\w-]+$/.test(text) // the hash becomes a file name in the cache

const unexpectedResponse = (repo: string, what: string, { endpoint }: HubSettings): Issue =>
  issue('HubStrange', `${repo}: ${endpoint} does not return ${what}; check that HF_ENDPOINT is the URL of a hub`, { repo })

/** Converts the failure of a response that is not JSON, such as a login page, or that breaks off, to an `InternVLError`. */
const readResponse = async <A>(repo: string, what: string, settings: HubSettings, read: () => Promise<A>): Promise<A> =>
  read().catch((error: unknown) => {
    settings.signal?.throwIfAborted()
    if (error instanceof InternVLError) throw error
    throw hubError(
      error instanceof SyntaxError ? unexpectedResponse(repo, what, settings) : unreachable({ repo }, error, settings)
    )
  })

const collect = async <A>(items: AsyncIterable<A>): Promise<readonly A[]> => {
  const all: A[] = []
  for await (const item of items) all.push(item)
  return all
}

/** The current commit of the revision. */
export const resolveRevision = async (repo: string, settings: HubSettings): Promise<string> => {
  const { revision, endpoint: hubUrl } = settings
  const what = `the commit of ${revision}`
  const fetch = hubFetch({ repo }, settings)
  const { sha } = await readResponse(repo, what, settings, () =>
    modelInfo({ name: repo, revision, hubUrl, fetch, additionalFields: ['sha'] })
  )
  if (!isHash(sha)) throw hubError(unexpectedResponse(repo, what, settings))
  return sha
}

/** The files in the root folder of a commit. */
export const listCommit = async (repo: string, commit: string, settings: HubSettings): Promise<readonly RemoteFile[]> => {
  const what = 'its files with their sizes and hashes'
  const fetch = hubFetch({ repo }, settings)
  const entries = await readResponse(repo, what, settings, () =>
    collect(listFiles({ repo, revision: commit, hubUrl: settings.endpoint, fetch }))
  )
  const files = entries.filter(({ type, path }) => type === 'file' && !path.includes('/'))
  return files.map(({ path, size, oid, lfs }) => {
    const etag = lfs?.oid ?? oid
    if (!isHash(etag) || !Number.isSafeInteger(size)) throw hubError(unexpectedResponse(repo, what, settings))
    return { path, etag, size: lfs?.size ?? size, sha256: /^[0-9a-f]{64}$/.test(lfs?.oid ?? '') ? lfs?.oid : undefined }
  })
}
