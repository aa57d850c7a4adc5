import { lookup as dnsLookup } from 'node:dns'
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { isIP, type LookupFunction, type Socket } from 'node:net'
import { pipeline, type Readable } from 'node:stream'
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, invalid } from '../../lib/error.js'
import { isGlobalAddress } from './address-range.js'
import { allowsHost, type MediaOptions, type MediaPolicy, policyOf } from './media-policy.js'

export type { MediaOptions as DownloadOptions } from './media-policy.js'

/** The policy forbids a URL, a redirect, an address or a size. */
class RefusedDownload extends Error {}

interface Limits {
  readonly policy: Required<MediaPolicy>
  readonly lookup: LookupFunction
  readonly signal: AbortSignal
}

const checkAddress = ({ addresses }: Required<MediaPolicy>, host: string, address: string): void => {
  if (addresses === 'any' || isGlobalAddress(address)) return
  const name = host === address ? host : `${host} (${address})`
  throw new RefusedDownload(`${name} is not an address on the internet (a private address, for example)`)
}

/**
 * The resolver of the connecting socket: the socket connects to the addresses that were checked, so a name that resolves to another
 * address the next time (DNS rebinding) gains nothing.
 */
const checkedLookup =
  ({ policy, lookup }: Limits): LookupFunction =>
  (host, options, callback) =>
    lookup(host, { ...options, all: true }, (error, found) => {
      const resolved = typeof found === 'string' ? [{ address: found, family: isIP(found) }] : (found ?? [])
      try {
        if (error) throw error
        for (const { address } of resolved) checkAddress(policy, host, address)
        const [first] = resolved
        if (!first) throw new RefusedDownload(`${host} has no address`)
        if (options.all) callback(null, resolved)
        else callback(null, first.address, first.family)
      } catch (refused) {
        callback(refused as Error, [])
      }
    })

/** Throws where the policy forbids a URL. Sockets resolve no IP addresses, so those are checked here. */
const checkUrl = (url: URL, policy: Required<MediaPolicy>): void => {
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new RefusedDownload(`it redirects to ${url.protocol}, only http and https are allowed`)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (!allowsHost(policy, host)) throw new RefusedDownload(`${host} is not one of the allowed domains (mediaPolicy.domains)`)
  if (isIP(host)) checkAddress(policy, host, host)
}

const send = (url: URL, limits: Limits): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    checkUrl(url, limits.policy)
    const request = url.protocol === 'https:' ? requestHttps : requestHttp
    const headers = { accept: '*/*', 'accept-encoding': 'identity', 'user-agent': 'internvl-tfjs' }
    // no agent: a pooled connection would skip the checks
    const sent = request(url, { agent: false, lookup: checkedLookup(limits), signal: limits.signal, headers }, resolve)
    sent.on('error', reject)
    sent.on('socket', (socket: Socket) =>
      socket.once('connect', () => {
        try {
          checkAddress(limits.policy, url.hostname, socket.remoteAddress?.replace(/^::ffff:(?=\d+\.)/i, '') ?? '')
        } catch (error) {
          sent.destroy(error as Error)
        }
      })
    )
    sent.end()
  })

const follow = async (url: URL, limits: Limits, hops = 0): Promise<IncomingMessage> => {
  const response = await send(url, limits)
  const { statusCode = 0, statusMessage = '', headers } = response
  if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
    response.destroy()
    const { maxRedirects } = limits.policy
    if (hops >= maxRedirects) throw new RefusedDownload(`more than ${maxRedirects} redirects`)
    return follow(new URL(headers.location, url), limits, hops + 1)
  }
  if (statusCode < 200 || statusCode >= 300) {
    response.destroy()
    throw new RefusedDownload(`the server answered ${statusCode} ${statusMessage}`.trimEnd())
  }
  return response
}

const decoders: Readonly<Record<string, () => NodeJS.ReadWriteStream>> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress
}

/** The body; decompressed where the server compressed it though not asked to. */
const decoded = (response: IncomingMessage): Readable => {
  const decoder = decoders[response.headers['content-encoding']?.toLowerCase() ?? '']
  return decoder ? (pipeline(response, decoder(), () => undefined) as unknown as Readable) : response
}

const bodyOf = async (response: IncomingMessage, maxBytes: number): Promise<Buffer> => {
  const tooLarge = () => new RefusedDownload(`it is larger than ${maxBytes} bytes`)
  try {
    if (Number(response.headers['content-length'] ?? 0) > maxBytes) throw tooLarge()
    const chunks: Uint8Array[] = []
    let size = 0
    for await (const chunk of decoded(response)) {
      size += chunk.length
      if (size > maxBytes) throw tooLarge()
      chunks.push(chunk)
    }
    return Buffer.concat(chunks)
  } finally {
    response.destroy()
  }
}

const reasonOf = (error: unknown): string => {
  const { message, code } = error as NodeJS.ErrnoException
  const [first] = error instanceof AggregateError ? error.errors : []
  return message || (first as Error | undefined)?.message || code || String(error)
}

/** Most milliseconds that `AbortSignal.timeout` takes, 49 days; a longer timeout, such as `Infinity`, is none. */
const LONGEST_TIMEOUT = 2 ** 32 - 1

/**
 * Downloads an http or https URL within the media policy: domains, addresses, redirects, time and size. Errors: `Download`, which names
 * the URL and the reason.
 */
export const download =
  (address: string | URL, options: MediaOptions = {}): TaskEither<Issues, Buffer> =>
  async () => {
    const policy = policyOf(options)
    const milliseconds = policy.timeout * 1000
    const signal = milliseconds <= LONGEST_TIMEOUT ? AbortSignal.timeout(milliseconds) : new AbortController().signal
    try {
      const response = await follow(new URL(address), { policy, lookup: options.lookup ?? dnsLookup, signal })
      return E.right(await bodyOf(response, policy.maxBytes))
    } catch (error) {
      const reason = signal.aborted ? `it took longer than ${policy.timeout} seconds` : reasonOf(error)
      const url = String(address)
      return invalid('Download', `${url}: could not be fetched: ${reason}.`, { url })
    }
  }
