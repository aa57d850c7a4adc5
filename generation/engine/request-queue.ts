import { EngineCrashedError, QueueFullError } from './engine-errors.js'
import type { EngineRequest, EngineStats } from './engine-types.js'
import type { RequestMessage, ToProcess } from './protocol.js'
import { fromSentError } from './protocol.js'
import { requestCounters } from './request-counters.js'
import { type RequestState, requestState } from './request-handle.js'

/** A request on its way. */
interface Pending {
  readonly state: RequestState
  readonly request: EngineRequest
  /** Rows of the batch that it takes. */
  readonly rows: number
  /** Whether all of its bytes are read. */
  isLoaded: boolean
  /** Whether the process has it. */
  isSent: boolean
}

export interface NewRequest {
  readonly id: string
  readonly request: EngineRequest
  /** Bytes of the request that are still read. */
  readonly loaded: Promise<unknown> | undefined
  readonly rows: number
  readonly choices: number
}

/** Requests that wait, and requests that the process has. */
export interface RequestQueue {
  /** Throws a `QueueFullError` if too many wait. */
  readonly add: (request: NewRequest) => RequestState
  readonly onMessage: (message: RequestMessage) => void
  /** Sends waiting requests while rows are free. */
  readonly pump: () => void
  /** Fails the requests that the process had. */
  readonly onCrash: (reason: string) => void
  /** Fails every request. */
  readonly failAll: (error: Error) => void
  readonly abortAll: () => void
  /** Resolves when no request is left. */
  readonly whenIdle: () => Promise<void>
  readonly counts: () => Pick<EngineStats, 'running' | 'waiting' | 'usedRows' | 'requests' | 'tokens'>
}

export interface QueueOptions {
  readonly maxBatch: number
  readonly maxQueue: number
  readonly isReady: () => boolean
  readonly send: (message: ToProcess) => void
  /** A request has ended well. */
  readonly onSuccess: () => void
}

/** A bounded queue in order of arrival; at most `maxBatch` rows are with the process, or one request that needs more. */
export const requestQueue = ({ maxBatch, maxQueue, isReady, send, onSuccess }: QueueOptions): RequestQueue => {
  let waiting: readonly Pending[] = []
  const running = new Map<string, Pending>()
  const counters = requestCounters()
  let idle: (() => void)[] = []

  const usedRows = (): number => [...running.values()].reduce((sum, { rows }) => sum + rows, 0)
  const isFree = (rows: number): boolean => isReady() && (running.size === 0 || usedRows() + rows <= maxBatch)
  const isIdle = (): boolean => running.size + waiting.length === 0
  const onChange = (): void => {
    pump()
    if (!isIdle()) return
    for (const resolve of idle) resolve()
    idle = []
  }
  const pump = (): void => {
    for (let next = waiting[0]; next?.isLoaded && isFree(next.rows); next = waiting[0]) {
      waiting = waiting.slice(1)
      running.set(next.state.handle.id, next)
      next.state.onSent()
      next.isSent = true
      send({ type: 'run', id: next.state.handle.id, request: next.request })
    }
  }
  const fail = (pending: Pending, error: unknown): void => {
    if (pending.state.isEnded()) return
    counters.onFailed()
    pending.state.fail(error)
  }
  const onAbort = (pending: Pending): void => {
    counters.onAborted(pending.state)
    if (pending.isSent) send({ type: 'abort', id: pending.state.handle.id })
    else waiting = waiting.filter((other) => other !== pending)
    onChange()
  }

  const add = ({ id, request, loaded, rows, choices }: NewRequest): RequestState => {
    if (waiting.length >= maxQueue && (waiting.length > 0 || !isFree(rows))) {
      counters.onRefused()
      throw new QueueFullError(maxQueue, counters.retryAfter(waiting.length, maxBatch))
    }
    counters.onAccepted()
    const state = requestState(id, choices, () => onAbort(pending))
    const pending: Pending = { state, request, rows, isLoaded: !loaded, isSent: false }
    waiting = [...waiting, pending]
    const onLoaded = (): void => {
      pending.isLoaded = true
      pump()
    }
    const onUnreadable = (error: unknown): void => {
      waiting = waiting.filter((other) => other !== pending)
      fail(pending, new RangeError(`request: a blob cannot be read (${error})`))
      onChange()
    }
    loaded?.then(onLoaded, onUnreadable)
    pump()
    return state
  }
  const onDone = ({ id, error }: Extract<RequestMessage, { readonly done: true }>): void => {
    const pending = running.get(id)
    if (!pending) return
    running.delete(id)
    if (error) fail(pending, fromSentError(error))
    else pending.state.abort() // a request that has not finished was aborted by the process
    onChange()
  }
  return {
    add,
    pump,
    onMessage: (message) => {
      if ('done' in message) return onDone(message)
      const pending = running.get(message.id)
      if (!pending || pending.state.isEnded()) return
      pending.state.onEvent(message.event)
      if (message.event.type !== 'finished') return
      counters.onFinished(pending.state)
      onSuccess()
    },
    onCrash: (reason) => {
      const lost = [...running.values()]
      running.clear()
      for (const pending of lost) fail(pending, new EngineCrashedError(reason))
      onChange()
    },
    failAll: (error) => {
      const all = [...running.values(), ...waiting]
      running.clear()
      waiting = []
      for (const pending of all) fail(pending, error)
      onChange()
    },
    abortAll: () => {
      for (const { state } of [...waiting, ...running.values()]) state.abort()
    },
    whenIdle: () => (isIdle() ? Promise.resolve() : new Promise((resolve) => idle.push(resolve))),
    counts: () => ({ running: running.size, waiting: waiting.length, usedRows: usedRows(), ...counters.counts() })
  }
}
