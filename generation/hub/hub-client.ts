import { setTimeout as sleep } from 'node:timers/promises'
import { type Issue, issue } from '../../lib/error.js'
import { answerIssue, connectionCode, type Subject, thrown, unreachable } from './hub-errors.js'
import type { Settings } from './hub-settings.js'

/** Attempts that bring nothing new before one gives up. */
export const attempts = 5
const longestWait = 120_000 // ms that the hub may ask for and a person would sit through

/** Milliseconds before attempt `i`, counted from 0. */
export const backoffOf = ({ backoff }: Settings, i: number): number => backoff * 2 ** i

/** Milliseconds that the hub asks to wait: `Retry-After` in seconds or as a date, else the `t` of `RateLimit`. */
const waitOf = (headers: Headers): number | undefined => {
  const after = headers.get('retry-after')
  const seconds = Number(after ?? /\bt=(\d+)/.exec(headers.get('ratelimit') ?? '')?.[1] ?? Number.NaN)
  const ms = Number.isNaN(seconds) && after !== null ? Date.parse(after) - Date.now() : 1000 * seconds
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}

/** Ends what has been silent for `ms`; `beat` says that it was not. */
const watchdog = (ms: number) => {
  const silence = new AbortController()
  const late = Object.assign(new Error('silence'), { code: `no answer for ${ms / 1000} s` })
  const timer = setTimeout(() => silence.abort(late), ms).unref()
  return { signal: silence.signal, beat: () => void timer.refresh(), end: () => clearTimeout(timer) }
}

type Url = Parameters<typeof fetch>[0]

/** One request, which ends when no byte has come for a time, be it in the middle. Node's fetch sends the token to no other host. */
const request = async (url: Url, init: RequestInit, settings: Settings): Promise<Response> => {
  const { token, timeout, endpoint } = settings
  const headers = new Headers(init.headers)
  headers.set('accept-encoding', 'identity') // sizes and ranges are of the file itself
  if (token !== undefined && new URL(url instanceof Request ? url.url : url).origin === new URL(endpoint).origin)
    headers.set('authorization', `Bearer ${token}`)
  const { signal, beat, end } = watchdog(timeout)
  const signals = settings.signal ? [signal, settings.signal] : [signal]
  const response = await fetch(url, { ...init, headers, signal: AbortSignal.any(signals) }).catch((error: unknown) => {
    end()
    throw error
  })
  beat()
  if (!response.body) return response
  const listen = new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, out) => {
      beat()
      out.enqueue(chunk)
    },
    flush: end
  })
  return new Response(response.body.pipeThrough(listen), response)
}

/** Settings of one who asks; the patient wait for a network that is not there, as in the middle of a download. */
export type Patience = Settings & { readonly patient?: boolean }

/** No network at all, rather than one that has a bad moment: asking again now would only keep a person waiting. */
const isHopeless = (error: unknown): boolean =>
  /^(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ERR_INVALID_URL)$/.test(connectionCode(error))

/** One attempt: an answer, or why there is none and the milliseconds before another, none where that is of no use. */
const attempt = async (url: Url, init: RequestInit, subject: Subject, settings: Patience, i: number) => {
  const backoff = backoffOf(settings, i)
  try {
    const response = await request(url, init, settings)
    if (response.ok) return { response }
    await response.body?.cancel()
    const { status, headers } = response
    const asked = waitOf(headers)
    const wait = status === 429 || status === 408 || status >= 500 ? (asked ?? backoff) : undefined
    return { issue: answerIssue(subject, response, settings, asked), why: `the hub answers ${status}`, wait }
  } catch (error) {
    settings.signal?.throwIfAborted()
    const wait = isHopeless(error) && !settings.patient ? undefined : backoff
    return { issue: unreachable(subject, error, settings), why: `no connection (${connectionCode(error)})`, wait }
  }
}

/** Pauses; the caller's signal ends it. */
export const pause = (ms: number, { signal }: Settings): Promise<void> => sleep(ms, undefined, signal ? { signal } : {})

const badToken = (source: string): Issue =>
  issue('BadToken', `the token from ${source} is empty or has characters that no token has; copy it again`)

/** A `fetch` that knows the token and is patient: a good answer, or an `InternVLError` with the error of the last of its bounded attempts. */
export const ask =
  (subject: Subject, settings: Patience): typeof fetch =>
  async (url, init = {}) => {
    const { token, tokenSource } = settings
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) throw thrown(badToken(tokenSource))
    for (let i = 0; ; i++) {
      const { response, issue, why, wait } = await attempt(url, init, subject, settings, i)
      if (response) return response
      if (wait === undefined || wait > longestWait || i + 1 === attempts) throw thrown(issue)
      settings.onRemark(`${subject.file ?? subject.repo}: ${why}; asking again in ${(wait / 1000).toFixed(1)} s`)
      await pause(wait, settings)
    }
  }
