import type { EngineEvent } from '../../engine/engine-types.js'
import type { Tool } from './chat-request.js'
import { type AnswerHead, finishReasonOf, logprobsContent, toUsage } from './chat-response.js'
import { type ParsedPiece, type ToolCall, type ToolCallParser, toolCallParser } from './tool-calls.js'

interface Delta {
  readonly role?: 'assistant'
  readonly content?: string
  readonly tool_calls?: readonly (ToolCall & { readonly index: number })[]
}

/** Settings of a stream. */
export interface ChunkOptions {
  readonly tools: readonly Tool[]
  /** Whether a last chunk has the token counts. */
  readonly includeUsage: boolean
}

interface AnswerState {
  readonly parser: ToolCallParser
  calls: number
}

/** Turns the events of a request into chunks of OpenAI's stream. Each call returns the chunks of one event. */
export const chunkMaker = (head: AnswerHead, { tools, includeUsage }: ChunkOptions) => {
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
    const state = { parser: toolCallParser(tools), calls: 0 }
    states.set(index, state)
    return { state, chunks: [choiceChunk(index, { role: 'assistant', content: '' })] }
  }
  const pieceChunks = (index: number, state: AnswerState, { text, calls }: ParsedPiece, logprobs: object | null) => {
    const textChunk =
      text !== '' || (logprobs && calls.length === 0) ? [choiceChunk(index, { content: text }, null, logprobs)] : []
    const callChunks = calls.map((call) => choiceChunk(index, { tool_calls: [{ index: state.calls++, ...call }] }))
    return [...textChunk, ...callChunks]
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
    const [piece, rest] = [state.parser.push(event.text), state.parser.end()]
    const last = { text: piece.text + rest.text, calls: [...piece.calls, ...rest.calls] }
    const pieces = pieceChunks(event.choice, state, last, null)
    return [...chunks, ...pieces, choiceChunk(event.choice, {}, finishReasonOf(event.finishReason, state.calls > 0))]
  }
}
