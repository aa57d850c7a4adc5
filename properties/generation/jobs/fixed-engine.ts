import { setTimeout } from 'node:timers/promises'
import { EngineCrashedError } from '../../../generation/engine/engine-errors.js'
import type { EngineHandle, EngineInfo, EngineRequest, EngineResult } from '../../../generation/engine/engine-types.js'
import type { ClosableEngine } from '../../../generation/jobs/run-batch.js'
import { InputError, issue } from '../../../lib/error.js'
import { itemsOf } from '../../../processors/text/messages.js'

export interface FixedEngineOptions {
  /** Answers at a time; default: no limit. */
  readonly batch?: number

  /** Milliseconds of an answer. */
  readonly delay?: number
  /** Questions that are refused as input. */
  readonly isRefused?: (question: string) => boolean
  /** Questions that end the process of the model, with every answer in progress. */
  readonly isDeadly?: (question: string) => boolean
  /** Called with every question that is asked. */
  readonly onQuestion?: (question: string) => void
}

export const questionOf = ({ messages = [] }: EngineRequest): string =>
  messages.flatMap(itemsOf).reduce((text, item) => text + (item.type === 'text' ? item.text : ''), '')

const info = { model: 'fixed', dir: 'fixed', defaults: {}, chatTemplate: '', supportsTools: false } as unknown as EngineInfo

const resultOf = (question: string): EngineResult =>
  ({
    choices: [
      {
        text: `answer to ${question}`,
        tokens: [...question].map((_, i) => i),
        finishReason: 'eos',
        logprobs: [...question].map((text, i) => ({ text, token: i, logprob: -1 / (i + 1) }))
      }
    ],
    usage: {
      prompt: { total: 1, text: 1, image: 0, reused: 0, computed: 1, tiles: 0 },
      encodedTiles: 0,
      newTokens: question.length
    }
  }) as unknown as EngineResult

/** An engine without a model: the answer is a function of the question, after a fixed delay. */
export const fixedEngine = ({
  batch = Number.POSITIVE_INFINITY,
  delay = 0,
  isRefused,
  isDeadly,
  onQuestion
}: FixedEngineOptions = {}): ClosableEngine => {
  let crash = new AbortController()
  let running = 0
  const waiting: (() => void)[] = []
  /** Waits for a free row of the batch. */
  const limited = async <A>(work: () => Promise<A>): Promise<A> => {
    if (running >= batch) await new Promise<void>((resolve) => waiting.push(resolve))
    else running++
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running--
    }
  }
  const answer = async (question: string): Promise<EngineResult> => {
    onQuestion?.(question)
    const current = crash
    await setTimeout(delay, undefined, { signal: current.signal }).catch(() => undefined)
    if (isDeadly?.(question)) {
      current.abort()
      crash = new AbortController()
    }
    if (current.signal.aborted) throw new EngineCrashedError('signal SIGKILL')
    if (isRefused?.(question)) throw new InputError([issue('Test', `${question}: refused`)])
    return resultOf(question)
  }
  return {
    info,
    submit: (request) => {
      const result = limited(() => answer(questionOf(request)))
      result.catch(() => undefined)
      return { result: () => result } as EngineHandle
    },
    tokenize: async (request) => ({ ids: [...questionOf(request)].map(() => 1), imageTokens: 0 }),
    close: async () => undefined
  }
}
