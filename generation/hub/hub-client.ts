import { setTimeout as sleep } from 'node:timers/promises'
import { type Issue, issue } from '../../lib/error.js'
import { connectionCode, hubError, type RequestTarget, responseIssue, unreachable } from './hub-errors.js'
import type { HubSettings } from './hub-settings.js'

/** Maximum number of attempts without progress. */
export const maxAttempts = 5
const maxWait = 120_000 // ms; a longer requested wait is an error

/** Milliseconds before attempt `i`, counted from 0. */
export const backoffDelay = ({ backoff }: HubSettings, i: number): number => backoff * 2 ** i

/** Wait in milliseconds that the response headers request: `Retry-After` in seconds or as a date, or else the `t` of `RateLimit`. */
const retryAfter = (headers: Headers): number | undefined => {
  const after = headers.get('retry-after')
  const seconds = Number(after ?? /\bt=(\d+)/.exec(headers.get('ratelimit') ?? '')?.[1] ?? Number.NaN)
  const ms = Number.isNaN(seconds) && after !== null ? Date.parse(after) - Date.now() : 1000 * seconds
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}

/** An abort signal after `ms` without a call of `reset`. */
const watchdog = (ms: number) => {
  const timeout = new AbortController()
  const late = Object.assign(new Error('timeout'), { code: `no answer for ${ms / 1000} s` })
  const timer = setTimeout(() => timeout.abort(late), ms).unref()
  return { signal: timeout.signal, reset: () => void timer.refresh(), end: () => clearTimeout(timer) }
}

type Url = Parameters<typeof fetch>[0]

/** One request with a timeout since the last received byte. Node's fetch drops the token on redirects to other hosts. */
const request = async (url: Url, init: RequestInit, settings: HubSettings): Promise<Response> => {
  const { token, timeout, endpoint } = settings
  const headers = new Headers(init.headers)
  headers.set('accept-encoding', 'identity') // sizes and ranges refer to the uncompressed file
  if (token !== undefined && new URL(url instanceof Request ? url.url : url).origin === new URL(endpoint).origin)
    headers.set('authorization', `Bearer ${token}`)
  const { signal, reset, end } = watchdog(timeout)
  const signals = settings.signal ? [signal, settings.signal] : [signal]
  const response = await fetch(url, { ...init, headers, signal: AbortSignal.any(signals) }).catch((error: unknown) => {
    end()
    throw error
  })
  reset()
  if (!response.body) return response
  const listen = new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, out) => {
      reset()
      out.enqueue(chunk)
    },
    flush: end
  })
  return new Response(response.body.pipeThrough(listen), response)
}

/** Settings of a request; `retryOffline` retries without a network, as in the middle of a download. */
export type FetchSettings = HubSettings & { readonly retryOffline?: boolean }

/** Whether there is no network at all, so that an immediate retry would fail again. */
const isOffline = (error: unknown): boolean =>
  /^(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ERR_INVALID_URL)$/.test(connectionCode(error))

/** One attempt: a response, or the reason of the failure and the wait before the next attempt, undefined if a retry is useless. */
const requestOnce = async (url: Url, init: RequestInit, subject: RequestTarget, settings: FetchSettings, i: number) => {
  const backoff = backoffDelay(settings, i)
  try {
    const response = await request(url, init, settings)
    if (response.ok) return { response }
    await response.body?.cancel()
    const { status, headers } = response
    const requestedWait = retryAfter(headers)
    const wait = status === 429 || status === 408 || status >= 500 ? (requestedWait ?? backoff) : undefined
    return { issue: responseIssue(subject, response, settings, requestedWait), why: `the hub responds with ${status}`, wait }
  } catch (error) {
    settings.signal?.throwIfAborted()
    const wait = isOffline(error) && !settings.retryOffline ? undefined : backoff
    return { issue: unreachable(subject, error, settings), why: `no connection (${connectionCode(error)})`, wait }
  }
}

/** Waits; the caller's signal ends the wait. */
export const pause = (ms: number, { signal }: HubSettings): Promise<void> => sleep(ms, undefined, signal ? { signal } : {})

const badToken = (source: string): Issue =>
  issue('BadToken', `the token from ${source} is empty or has invalid characters; copy the token again`)

/** A `fetch` with the token and bounded retries: resolves to a successful response, or throws an `InternVLError` of the last attempt. */
export const hubFetch =
  (subject: RequestTarget, settings: FetchSettings): typeof fetch =>
  async (url, init = {}) => {
    const { token, tokenSource } = settings
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) throw hubError(badToken(tokenSource))
    for (let i = 0; ; i++) {
      const { response, issue, why, wait } = await requestOnce(url, init, subject, settings, i)
      if (response) return response
      if (wait === undefined || wait > maxWait || i + 1 === maxAttempts) throw hubError(issue)
      settings.onWarning(`${subject.file ?? subject.repo}: ${why}; retrying in ${(wait / 1000).toFixed(1)} s`)
      await pause(wait, settings)
    }
  }
