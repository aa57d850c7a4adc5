import type { EngineStats } from './engine-types.js'
import type { RequestState } from './request-handle.js'

/** Largest number of seconds that a caller is asked to wait. */
const MAX_RETRY_SECONDS = 120

/** Counts requests by their ends and tokens by their kinds, and estimates how long a caller has to wait. */
export interface RequestCounters {
  readonly onAccepted: () => void
  readonly onRefused: () => void
  readonly onFinished: (state: RequestState) => void
  readonly onAborted: (state: RequestState) => void
  readonly onFailed: () => void
  /** Seconds after which a refused caller may try again, where `waiting` requests are waiting for `rows` rows of the batch. */
  readonly retryAfter: (waiting: number, rows: number) => number
  readonly counts: () => Pick<EngineStats, 'requests' | 'tokens'>
}

export const requestCounters = (): RequestCounters => {
  const requests = { accepted: 0, refused: 0, finished: 0, aborted: 0, failed: 0 }
  const tokens = { prompt: 0, image: 0, reused: 0, new: 0 }
  let meanSeconds = 1 // of a request that has finished, later ones with more weight

  const addUsage = (state: RequestState): void => {
    const { prompt, newTokens } = state.usage()
    tokens.prompt += prompt.total
    tokens.image += prompt.image
    tokens.reused += prompt.reused
    tokens.new += newTokens
  }
  return {
    onAccepted: () => {
      requests.accepted++
    },
    onRefused: () => {
      requests.refused++
    },
    onFinished: (state) => {
      requests.finished++
      addUsage(state)
      meanSeconds = 0.8 * meanSeconds + 0.2 * state.seconds()
    },
    onAborted: (state) => {
      requests.aborted++
      addUsage(state)
    },
    onFailed: () => {
      requests.failed++
    },
    retryAfter: (waiting, rows) => Math.min(MAX_RETRY_SECONDS, Math.max(1, Math.ceil((meanSeconds * (waiting + 1)) / rows))),
    counts: () => ({ requests: { ...requests }, tokens: { ...tokens } })
  }
}
