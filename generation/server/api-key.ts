import { createHash, timingSafeEqual } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'
import { RequestError } from './server-errors.js'

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()

/** Whether a key is one of `keys`. Digests are compared, all of them and in constant time: the duration tells nothing of a key. */
export const keyMatcher = (keys: readonly string[]): ((key: string) => boolean) => {
  const digests = keys.map(digest)
  return (key) => {
    const given = digest(key)
    return digests.filter((known) => timingSafeEqual(known, given)).length > 0
  }
}

const BEARER = { 'www-authenticate': 'Bearer' }

/** Asks for one of the keys in `Authorization: Bearer …`; asks for nothing without keys. */
export const requireKey = (keys: readonly string[]): MiddlewareHandler => {
  const matches = keyMatcher(keys)
  return async (c, next) => {
    if (keys.length > 0) {
      const [, key] = /^Bearer +(\S+)\s*$/i.exec(c.req.header('authorization') ?? '') ?? []
      if (key === undefined)
        throw new RequestError(
          401,
          'The API key is missing; send it as "Authorization: Bearer KEY".',
          null,
          'missing_api_key',
          BEARER
        )
      if (!matches(key)) throw new RequestError(401, 'The API key is wrong.', null, 'invalid_api_key', BEARER)
    }
    await next()
  }
}

/**
 * Refuses requests that a web page makes a browser send: a host name that resolves to this machine (DNS rebinding), and an origin that
 * is not allowed. For servers without a key on the loopback address.
 */
export const refuseForeignPages =
  (hosts: readonly string[], origins: readonly string[]): MiddlewareHandler =>
  async (c, next) => {
    const host = (c.req.header('host') ?? '').replace(/:\d+$/, '').toLowerCase()
    if (!hosts.includes(host))
      throw new RequestError(403, `The host name ${host.slice(0, 100)} is not served.`, null, 'wrong_host')
    const origin = c.req.header('origin')
    const isOwn = origin === undefined || hosts.some((name) => origin === `http://${c.req.header('host')}` && host === name)
    if (!isOwn && !origins.includes('*') && !origins.includes(origin!))
      throw new RequestError(
        403,
        'The origin of the page is not allowed; start the server with --cors-origin.',
        null,
        'wrong_origin'
      )
    await next()
  }
