import { InternVLError, type Issue, issue } from '../../lib/error.js'
import type { HubSettings } from './hub-settings.js'

/** Repository and file of a request, for error messages. */
export interface RequestTarget {
  readonly repo: string
  /** A file of the repository, if the request is for a file. */
  readonly file?: string
}

/** The error that the promise-based functions of this folder throw. */
export const hubError = (...issues: readonly [Issue, ...Issue[]]): InternVLError => new InternVLError([...issues])

const nameOf = ({ repo, file }: RequestTarget): string => (file === undefined ? repo : `${repo}/${file}`)

/** The error message of the hub in its headers, on one line of at most 200 characters. */
const serverMessage = (headers: Headers): string => {
  const text = (headers.get('x-error-message') ?? '').replace(/[^\x20-\x7e]+/g, ' ').trim()
  return text ? ` (message of the hub: ${text.slice(0, 200)})` : ''
}

const forbidden = (
  target: RequestTarget,
  response: Response,
  { token, tokenSource, tokenFile, endpoint }: HubSettings
): Issue => {
  const { status, headers } = response
  const gated = headers.get('x-error-code') === 'GatedRepo'
  const prefix = `${nameOf(target)}: the hub responds with ${status}${serverMessage(headers)}: `
  const action = gated ? `request access at ${endpoint}/${target.repo}, then` : 'check the name, or'
  const what =
    token === undefined
      ? `the repository is ${gated ? 'gated' : 'private, gated, or does not exist'}; ${action} set HF_TOKEN to a token with read access, or write a token to ${tokenFile} (\`hf auth login\`)`
      : status === 401
        ? `the token from ${tokenSource} is not valid; use a valid token, or none for public repositories`
        : `the token from ${tokenSource} has no access to this gated or private repository; request access at ${endpoint}/${target.repo}, or use another token`
  return issue('HubForbidden', prefix + what, { ...target, status })
}

const notFound = (target: RequestTarget, response: Response, { revision, token }: HubSettings): Issue => {
  const code = response.headers.get('x-error-code')
  const { repo, file } = target
  if (code === 'RevisionNotFound')
    return issue(
      'HubRevisionNotFound',
      `${repo}: the hub has no revision ${revision} of this repository; use a branch, a tag or a commit`,
      {
        repo,
        revision
      }
    )
  if (file !== undefined && code !== 'RepoNotFound')
    return issue('HubFileNotFound', `${repo}: the hub has no file ${file} at revision ${revision}`, { repo, file, revision })
  const what = code === 'RepoNotFound' ? 'no such repository' : `no such repository, or no revision ${revision}`
  const secret = token === undefined ? '; if the repository is private, set HF_TOKEN to a token with read access' : ''
  return issue('HubRepoNotFound', `${repo}: there is no local folder with this name, and the hub has ${what}${secret}`, {
    repo,
    revision
  })
}

/** The issue of a failed response. Tags: `HubForbidden`, `HubRepoNotFound`, `HubRevisionNotFound`, `HubFileNotFound`, `HubBusy`, `HubDown`, `HubRefused`. */
export const responseIssue = (target: RequestTarget, response: Response, settings: HubSettings, waitMs?: number): Issue => {
  const { status } = response
  const { endpoint } = settings
  if (status === 401 || status === 403) return forbidden(target, response, settings)
  if (status === 404) return notFound(target, response, settings)
  const again = waitMs === undefined ? 'in a few minutes' : `in ${Math.ceil(waitMs / 1000)} s`
  const name = nameOf(target)
  if (status === 429) {
    const more = settings.token === undefined ? ', or set HF_TOKEN for a higher rate limit' : ''
    return issue('HubBusy', `${name}: the hub's rate limit is reached (429); try again ${again}${more}`, { ...target, waitMs })
  }
  if (status >= 500)
    return issue('HubDown', `${name}: the hub at ${endpoint} has a server error (${status}); try again ${again}`, {
      ...target,
      status
    })
  return issue(
    'HubRefused',
    `${name}: the hub at ${endpoint} responds with ${status} ${response.statusText}${serverMessage(response.headers)}`,
    {
      ...target,
      status
    }
  )
}

/** The system error code of a failed connection, which Node's fetch keeps in the cause of its error. */
export const connectionCode = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  return code ?? (error.cause === undefined ? error.message : connectionCode(error.cause))
}

/** The issue of a failed or broken connection. */
export const unreachable = (target: RequestTarget, error: unknown, { endpoint }: HubSettings): Issue => {
  const code = connectionCode(error)
  return issue('HubUnreachable', `${nameOf(target)}: the hub at ${endpoint} cannot be reached (${code}); check the network`, {
    ...target,
    code
  })
}

/** The issue of a cache that cannot be written. */
export const diskIssue = (error: unknown, folder: string): Issue => {
  const code = connectionCode(error)
  const move = 'or set HF_HUB_CACHE to another folder'
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? issue('DiskFull', `${folder}: the disk is full (${code}); free some space, ${move}; the downloaded bytes are kept`, {
        folder,
        code
      })
    : issue('CacheUnwritable', `${folder}: the cache cannot be written (${code}); fix its permissions, ${move}`, {
        folder,
        code
      })
}
