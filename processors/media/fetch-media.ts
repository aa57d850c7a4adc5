import { lookup } from 'node:dns/promises'
import { BlockList, isIP } from 'node:net'
import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { type Issues, issue } from '../../lib/error.js'

export interface DownloadOptions {
  /** Seconds for the whole download. Default: 30. */
  readonly timeout?: number
  /** Largest download in bytes. Default: 100 MiB. */
  readonly maxBytes?: number
  /** Whether URLs may point to loopback and private addresses. Default: true. */
  readonly allowPrivateAddresses?: boolean
}

const PRIVATE = new BlockList()
for (const [net, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16]
] as const)
  PRIVATE.addSubnet(net, prefix, 'ipv4')
for (const [net, prefix] of [
  ['::', 127],
  ['fc00::', 7],
  ['fe80::', 10]
] as const)
  PRIVATE.addSubnet(net, prefix, 'ipv6')

const isPrivate = async (host: string): Promise<boolean> => {
  const bare = host.replace(/^\[|\]$/g, '')
  const addresses = isIP(bare) ? [bare] : (await lookup(bare, { all: true })).map(({ address }) => address)
  return addresses.some((address) => PRIVATE.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4'))
}

class RefusedDownload extends Error {}

const MAX_REDIRECTS = 10

const follow = async (url: URL, signal: AbortSignal, allowPrivate: boolean, hops = 0): Promise<Response> => {
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new RefusedDownload(`it redirects to ${url.protocol}, only http and https are allowed`)
  if (!allowPrivate && (await isPrivate(url.hostname))) throw new RefusedDownload(`${url.hostname} is a private address`)
  const response = await fetch(url, { redirect: 'manual', signal })
  const next = response.headers.get('location')
  if (response.status >= 300 && response.status < 400 && next !== null) {
    if (hops === MAX_REDIRECTS) throw new RefusedDownload(`more than ${MAX_REDIRECTS} redirects`)
    await response.body?.cancel()
    return follow(new URL(next, url), signal, allowPrivate, hops + 1)
  }
  if (!response.ok) throw new RefusedDownload(`the server answered ${response.status} ${response.statusText}`.trimEnd())
  return response
}

const bodyOf = async (response: Response, maxBytes: number): Promise<Buffer> => {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.length
    if (size > maxBytes) throw new RefusedDownload(`it is larger than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

const reasonOf = (error: unknown, timeout: number): string => {
  if (!(error instanceof Error)) return String(error)
  if (error.name === 'TimeoutError') return `it took longer than ${timeout} seconds`
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message
}

/** Downloads an http or https URL within the limits of time and size. Errors: one that names the URL and the reason. */
export const download =
  (
    address: string | URL,
    { timeout = 30, maxBytes = 100 * 2 ** 20, allowPrivateAddresses = true }: DownloadOptions = {}
  ): TaskEither<Issues, Buffer> =>
  async () => {
    try {
      const response = await follow(new URL(address), AbortSignal.timeout(timeout * 1000), allowPrivateAddresses)
      return E.right(await bodyOf(response, maxBytes))
    } catch (error) {
      const url = String(address)
      return E.left([issue('Download', `${url}: could not be fetched: ${reasonOf(error, timeout)}.`, { url })])
    }
  }
