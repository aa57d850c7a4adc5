import type { EngineEvent } from '../../engine/engine-types.js'
import { type AnswerHead, finishReasonOf, logprobsContent, toUsage } from './chat-response.js'
import { type ParsedPiece, parseRest, type ToolCall, type ToolCallParser } from './tools/tool-call-parser.js'

interface Delta {
  readonly role?: 'assistant'
  readonly content?: string
  readonly reasoning_content?: string
  readonly tool_calls?: readonly (ToolCall & { readonly index: number })[]
}

/** Settings of a stream. */
export interface ChunkOptions {
  /** A parser for each answer. */
  readonly makeParser: () => ToolCallParser
  /** Whether a last chunk has the token counts. */
  readonly includeUsage: boolean
}

interface AnswerState {
  readonly parser: ToolCallParser
  calls: number
}

/** Turns the events of a request into chunks of OpenAI's stream. Each call returns the chunks of one event. */
export const chunkMaker = (head: AnswerHead, { makeParser, includeUsage }: ChunkOptions) => {
  const states = new Map<number, AnswerState>()
  const usageField = includeUsage ? { usage: null } : {}
  const chunk = (choices: readonly object[], fields: object = usageField) => ({
    id: head.id,
    object: 'chat.completion.chunk' as const,
    created: head.created,
    model: head.model,
    choices,
    ...fields
  })
  const choiceChunk = (index: number, delta: Delta, finish_reason: string | null = null, logprobs: object | null = null) =>
    chunk([{ index, delta, logprobs, finish_reason }])

  const begin = (index: number): { readonly state: AnswerState; readonly chunks: readonly object[] } => {
    const known = states.get(index)
    if (known) return { state: known, chunks: [] }
    const state = { parser: makeParser(), calls: 0 }
    states.set(index, state)
    return { state, chunks: [choiceChunk(index, { role: 'assistant', content: '' })] }
  }
  const pieceChunks = (index: number, state: AnswerState, { text, calls, reasoning }: ParsedPiece, logprobs: object | null) => {
    const thought = reasoning === undefined ? [] : [choiceChunk(index, { reasoning_content: reasoning })]
    const textChunk = text !== '' || logprobs ? [choiceChunk(index, { content: text }, null, logprobs)] : []
    const callChunks = calls.map((call) => choiceChunk(index, { tool_calls: [{ index: state.calls++, ...call }] }))
    return [...thought, ...textChunk, ...callChunks]
  }
  return (event: EngineEvent): readonly object[] => {
    if (event.type === 'started') return []
    if (event.type === 'finished') return includeUsage ? [chunk([], { usage: toUsage(event.usage) })] : []
    const { state, chunks } = begin(event.choice)
    if (event.type === 'token') {
      const { logprob, topLogprobs } = event
      const logprobs = logprob ? { content: logprobsContent([logprob], topLogprobs ? [topLogprobs] : []), refusal: null } : null
      return [...chunks, ...pieceChunks(event.choice, state, state.parser.push(event.text), logprobs)]
    }
    const pieces = pieceChunks(event.choice, state, parseRest(state.parser, event.text), null)
    return [...chunks, ...pieces, choiceChunk(event.choice, {}, finishReasonOf(event.finishReason, state.calls > 0))]
  }
}
