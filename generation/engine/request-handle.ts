import { asyncQueue } from './async-queue.js'
import type { Choice, EngineEvent, EngineHandle, EngineResult, PromptUsage, TokenLogprob, Usage } from './engine-types.js'
import type { PhaseSeconds, ProcessEvent } from './process/request-context.js'

/** An answer while it grows. */
interface GrowingChoice {
  text: string
  readonly tokens: number[]
  readonly logprobs: TokenLogprob[]
  readonly topLogprobs: (readonly TokenLogprob[])[]
  finishReason?: Choice['finishReason']
  score?: number
}

/** The engine's side of a handle. */
export interface RequestState {
  readonly handle: EngineHandle
  /** Called when the request is sent to the process. */
  readonly onSent: () => void
  readonly onEvent: (event: ProcessEvent) => void
  readonly fail: (error: unknown) => void
  /** Ends the request as aborted; its later events are ignored. */
  readonly abort: () => void
  readonly isEnded: () => boolean
  readonly usage: () => Usage
  /** Seconds since the request was sent. */
  readonly seconds: () => number
}

const noPrompt: PromptUsage = { total: 0, text: 0, image: 0, reused: 0, computed: 0, tiles: 0 }

const toChoice = ({ text, tokens, logprobs, topLogprobs, finishReason = 'aborted', score }: GrowingChoice): Choice => ({
  ...{ text, tokens, finishReason },
  ...(logprobs.length > 0 ? { logprobs } : {}),
  ...(topLogprobs.length > 0 ? { topLogprobs } : {}),
  ...(score === undefined ? {} : { score })
})

/**
 * A request with `choices` answers: gathers its events to a result. `onAbort` is called once if the caller ends the request before
 * its end.
 */
export const requestState = (id: string, choices: number, onAbort: () => void): RequestState => {
  const queue = asyncQueue<EngineEvent>(() => abort())
  const answers = Array.from({ length: choices }, (): GrowingChoice => ({ text: '', tokens: [], logprobs: [], topLogprobs: [] }))
  const accepted = performance.now()
  let [sent, firstToken]: (number | undefined)[] = []
  let prompt = noPrompt
  let outcome: { readonly result: EngineResult } | { readonly error: unknown } | undefined
  let settle: (() => void) | undefined
  const ended = new Promise<void>((resolve) => (settle = resolve))
  const since = (time: number): number => (performance.now() - time) / 1000

  const usage = (): Usage => ({ prompt, encodedTiles: 0, newTokens: answers.reduce((sum, { tokens }) => sum + tokens.length, 0) })
  const finish = (used: Usage, seconds?: PhaseSeconds): void => {
    const [total, queued] = [since(accepted), ((sent ?? performance.now()) - accepted) / 1000]
    const first = firstToken === undefined ? total : (firstToken - accepted) / 1000
    const phases = seconds ?? { prepare: 0, prefill: first - queued, decode: total - first }
    const timings = { queue: queued, ...phases, firstToken: first, total }
    outcome = { result: { choices: answers.map(toChoice), usage: used, timings } }
    queue.push({ type: 'finished', usage: used, timings })
    queue.end()
    settle?.()
  }
  const addEvent = (event: Exclude<ProcessEvent, { readonly type: 'finished' }>): void => {
    if (event.type === 'started') prompt = event.prompt
    const answer = event.type === 'started' ? undefined : answers[event.choice]
    if (event.type === 'token' && answer) {
      firstToken ??= performance.now()
      answer.tokens.push(event.token)
      if (event.logprob) answer.logprobs.push(event.logprob)
      if (event.topLogprobs) answer.topLogprobs.push(event.topLogprobs)
    }
    if (event.type === 'choice' && answer) {
      answer.finishReason = event.finishReason
      if (event.score !== undefined) answer.score = event.score
    }
    if (event.type !== 'started' && answer) answer.text += event.text
    queue.push(event)
  }
  const fail = (error: unknown): void => {
    if (outcome) return
    outcome = { error }
    queue.fail(error)
    settle?.()
  }
  const abort = (): void => {
    if (outcome) return
    for (const [choice, { finishReason }] of answers.entries())
      if (!finishReason) addEvent({ type: 'choice', choice, text: '', finishReason: 'aborted' })
    finish(usage())
    onAbort()
  }
  const handle: EngineHandle = {
    id,
    abort,
    result: async () => {
      await ended
      if (outcome && 'result' in outcome) return outcome.result
      throw outcome?.error
    },
    [Symbol.asyncIterator]: () => queue[Symbol.asyncIterator]()
  }
  return {
    handle,
    onSent: () => {
      sent ??= performance.now()
    },
    onEvent: (event) => {
      if (outcome) return
      if (event.type === 'finished') finish(event.usage, event.seconds)
      else addEvent(event)
    },
    fail,
    abort,
    isEnded: () => outcome !== undefined,
    usage,
    seconds: () => since(sent ?? accepted)
  }
}
