import { InternVLError, type Issue, issue } from '../../lib/error.js'
import type { Settings } from './hub-settings.js'

/** Who is asked for what: for sentences about it. */
export interface Subject {
  readonly repo: string
  /** A file of the repository, where it is about one. */
  readonly file?: string
}

/** `error` as what the promise-based code of this folder throws. */
export const thrown = (...issues: readonly [Issue, ...Issue[]]): InternVLError => new InternVLError([...issues])

const nameOf = ({ repo, file }: Subject): string => (file === undefined ? repo : `${repo}/${file}`)

/** What the hub itself says, on one line and not too long. */
const saying = (headers: Headers): string => {
  const words = (headers.get('x-error-message') ?? '').replace(/[^\x20-\x7e]+/g, ' ').trim()
  return words ? ` (the hub says: ${words.slice(0, 200)})` : ''
}

const forbidden = (subject: Subject, response: Response, { token, tokenSource, tokenFile, endpoint }: Settings): Issue => {
  const { status, headers } = response
  const gated = headers.get('x-error-code') === 'GatedRepo'
  const told = `${nameOf(subject)}: the hub answers ${status}${saying(headers)}: `
  const ask = gated ? `ask for access on its page, ${endpoint}/${subject.repo}, then` : 'if that is its right name,'
  const what =
    token === undefined
      ? `the repository is ${gated ? 'gated' : 'private or gated, or there is none'}; ${ask} set HF_TOKEN to a token that may read it, or write one to ${tokenFile} (\`hf auth login\` does)`
      : status === 401
        ? `it does not know the token from ${tokenSource}; give one that is valid, or none for what is public`
        : `the token from ${tokenSource} may not read the repository, which is gated or private; ask for access on its page, ${endpoint}/${subject.repo}, or give another token`
  return issue('HubForbidden', told + what, { ...subject, status })
}

const absent = (subject: Subject, response: Response, { revision, token }: Settings): Issue => {
  const code = response.headers.get('x-error-code')
  const { repo, file } = subject
  if (code === 'RevisionNotFound')
    return issue('HubRevisionNotFound', `${repo}: the hub has no revision ${revision} of it; name a branch, a tag or a commit`, {
      repo,
      revision
    })
  if (file !== undefined && code !== 'RepoNotFound')
    return issue('HubFileNotFound', `${repo}: the hub has no file ${file} at revision ${revision}`, { repo, file, revision })
  const what = code === 'RepoNotFound' ? 'no such repository' : `no such repository, or no revision ${revision} of it`
  const secret = token === undefined ? '; if it is private, set HF_TOKEN to a token that may read it' : ''
  return issue('HubRepoNotFound', `${repo}: no folder of that name is here, and the hub has ${what}${secret}`, { repo, revision })
}

/** Why the hub gave no answer of use. Tags: `HubForbidden`, `HubRepoNotFound`, `HubRevisionNotFound`, `HubFileNotFound`, `HubBusy`, `HubDown`, `HubRefused`. */
export const answerIssue = (subject: Subject, response: Response, settings: Settings, waitMs?: number): Issue => {
  const { status } = response
  const { endpoint } = settings
  if (status === 401 || status === 403) return forbidden(subject, response, settings)
  if (status === 404) return absent(subject, response, settings)
  const again = waitMs === undefined ? 'in a few minutes' : `in ${Math.ceil(waitMs / 1000)} s`
  const name = nameOf(subject)
  if (status === 429) {
    const more = settings.token === undefined ? ', or set HF_TOKEN: who is known may ask more often' : ''
    return issue('HubBusy', `${name}: the hub has been asked too often (429); try again ${again}${more}`, { ...subject, waitMs })
  }
  if (status >= 500)
    return issue('HubDown', `${name}: the hub at ${endpoint} has an error of its own (${status}); try again ${again}`, {
      ...subject,
      status
    })
  return issue(
    'HubRefused',
    `${name}: the hub at ${endpoint} answers ${status} ${response.statusText}${saying(response.headers)}`,
    {
      ...subject,
      status
    }
  )
}

/** The code of a failed connection, which Node's fetch keeps in the cause of its error. */
export const connectionCode = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  return code ?? (error.cause === undefined ? error.message : connectionCode(error.cause))
}

/** No connection, or one that broke. */
export const unreachable = (subject: Subject, error: unknown, { endpoint }: Settings): Issue => {
  const code = connectionCode(error)
  return issue('HubUnreachable', `${nameOf(subject)}: the hub at ${endpoint} cannot be reached (${code}); check the network`, {
    ...subject,
    code
  })
}

/** A cache that cannot be written. */
export const diskIssue = (error: unknown, folder: string): Issue => {
  const code = connectionCode(error)
  const move = 'or set HF_HUB_CACHE to another folder'
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? issue('DiskFull', `${folder}: the disk is full (${code}); make room, ${move}; what has arrived is kept`, { folder, code })
    : issue('CacheUnwritable', `${folder}: the cache cannot be written (${code}); mend its permissions, ${move}`, {
        folder,
        code
      })
}
