import { realpath } from 'node:fs/promises'
import type { LookupFunction } from 'node:net'
import { isAbsolute, relative, resolve, sep } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid } from '../../lib/error.js'
import { withoutUndefined } from '../../lib/plain-object.js'

/** Sources that images and videos of messages may be opened from. Data URLs and bytes open nothing and are always allowed. */
export interface MediaPolicy {
  /** Local files: all (true), none (false), or those below these folders; symbolic links may not lead out. Default: true. */
  readonly localFiles?: boolean | readonly string[]
  /** Hosts of http and https URLs: any, or these names; `*.example.org` stands for every subdomain. Default: any. */
  readonly domains?: 'any' | readonly string[]
  /** Addresses that a connection may have: any, or only those of hosts on the internet. Default: any. */
  readonly addresses?: 'global' | 'any'
  /** Largest number of redirects; each one is checked as the first URL is. Default: 10. */
  readonly maxRedirects?: number
  /** Largest download in bytes. Default: 100 MiB. */
  readonly maxBytes?: number
  /** Seconds for the whole download. Default: 30. */
  readonly timeout?: number
}

export interface MediaOptions {
  /** Sources that may be opened. Default: every local file and every URL. */
  readonly mediaPolicy?: MediaPolicy
  /** Seconds for the whole download; `mediaPolicy.timeout` takes precedence. */
  readonly timeout?: number
  /** Largest download in bytes; `mediaPolicy.maxBytes` takes precedence. */
  readonly maxBytes?: number
  /** Alias of `mediaPolicy.addresses`: false is `'global'`. */
  readonly allowPrivateAddresses?: boolean
  /** Resolver of host names, called by the connecting socket. Default: `lookup` of node:dns. */
  readonly lookup?: LookupFunction
}

const DEFAULT_POLICY: Required<MediaPolicy> = {
  localFiles: true,
  domains: 'any',
  addresses: 'any',
  maxRedirects: 10,
  maxBytes: 100 * 2 ** 20,
  timeout: 30
}

/** Policy for untrusted messages: no local file, no URL until `domains` are given, no address inside the network. */
export const serverMediaPolicy: Required<MediaPolicy> = {
  localFiles: false,
  domains: [],
  addresses: 'global',
  maxRedirects: 3,
  maxBytes: 20 * 2 ** 20,
  timeout: 10
}

const isList = (value: unknown): boolean => Array.isArray(value) && value.every((item) => typeof item === 'string')
const isAmount = (value: number): boolean => typeof value === 'number' && value >= 0

/** The policy of the options, with all defaults. Throws a `RangeError` for a value that a policy cannot have. */
export const policyOf = ({ mediaPolicy = {}, timeout, maxBytes, allowPrivateAddresses }: MediaOptions): Required<MediaPolicy> => {
  const given = Object.entries({
    ...(allowPrivateAddresses === false ? { addresses: 'global' as const } : {}),
    ...{ timeout, maxBytes },
    ...withoutUndefined(mediaPolicy)
  })
  const policy: Required<MediaPolicy> = {
    ...DEFAULT_POLICY,
    ...Object.fromEntries(given.filter(([, value]) => value !== undefined))
  }
  // a misspelt policy must not be an open one
  const expected: Readonly<Record<keyof MediaPolicy, readonly [isValid: boolean, expected: string]>> = {
    localFiles: [typeof policy.localFiles === 'boolean' || isList(policy.localFiles), 'true, false or a list of folders'],
    domains: [policy.domains === 'any' || isList(policy.domains), "'any' or a list of host names"],
    addresses: [policy.addresses === 'any' || policy.addresses === 'global', "'global' or 'any'"],
    maxRedirects: [isAmount(policy.maxRedirects), 'a number of 0 or more'],
    maxBytes: [isAmount(policy.maxBytes), 'a number of bytes'],
    timeout: [isAmount(policy.timeout), 'a number of seconds']
  }
  for (const name of Object.keys(policy) as (keyof MediaPolicy)[]) {
    const [isValid, text] = expected[name] ?? [false, `one of ${Object.keys(expected).join(', ')} as a name`]
    if (!isValid) throw new RangeError(`mediaPolicy.${name}: expected ${text}, got ${JSON.stringify(policy[name])}`)
  }
  return policy
}

/** Whether a policy allows the host of a URL by its name. The address is checked when the socket connects. */
export const allowsHost = ({ domains }: Required<MediaPolicy>, hostname: string): boolean => {
  const host = hostname.toLowerCase().replace(/\.$/, '')
  return (
    domains === 'any' ||
    domains.some((name) => {
      const domain = name.toLowerCase()
      return domain.startsWith('*.') ? host.endsWith(domain.slice(1)) && host.length >= domain.length : host === domain
    })
  )
}

const SHOWN = 200

/** The beginning of a source, for messages: base64 has millions of characters. */
export const shown = (text: string): string => (text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text)

const isInside = (path: string, root: string): boolean => {
  const way = relative(root, path)
  return way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way)
}

/**
 * The path of a local file or folder that a policy allows, without symbolic links where the policy has roots. Errors: `NotAllowed`; the
 * message does not tell whether a forbidden file exists.
 */
export const allowedPath = async (path: string, options: MediaOptions): Promise<E.Either<Issues, string>> => {
  const { localFiles } = policyOf(options)
  if (localFiles === true) return E.right(path)
  if (localFiles !== false && localFiles.length > 0) {
    const [real, ...roots] = await Promise.all(
      [path, ...localFiles].map((file) => realpath(resolve(file)).catch(() => undefined))
    )
    if (real !== undefined && roots.some((root) => root !== undefined && isInside(real, root))) return E.right(real)
  }
  return invalid('NotAllowed', `${shown(path)}: this local file may not be opened (mediaPolicy.localFiles).`, {
    path: shown(path)
  })
}
