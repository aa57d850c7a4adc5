import { randomUUID } from 'node:crypto'
import type { EngineInfo } from '../../engine/engine-types.js'
import type { ResponseFormat, TaggedJson } from '../../structured/response-format.js'
import { RequestError } from '../server-errors.js'
import type { ChatRequest, Tool } from './chat-request.js'

/** A call of a tool in OpenAI's shape. */
export interface ToolCall {
  readonly id: string
  readonly type: 'function'
  readonly function: { readonly name: string; readonly arguments: string }
}

// Source: the chat templates of Qwen2.5 and Qwen3, after NousResearch's Hermes 2 Pro
const START = '<tool_call>'
const END = '</tool_call>'

/** The tools that the model may call; none for `tool_choice: "none"`. Throws a `RequestError` where the template has no tools. */
export const toolsOf = (
  { tools, tool_choice: choice }: ChatRequest,
  { chatTemplate, supportsTools }: EngineInfo
): readonly Tool[] => {
  const isForced = choice === 'required' || typeof choice === 'object'
  if (!tools?.length) {
    if (isForced && choice !== null) throw new RequestError(400, 'tool_choice: needs tools', 'tool_choice', 'conflict')
    return []
  }
  if (choice === 'none') return []
  if (!supportsTools || !chatTemplate.includes(START)) {
    const reason = supportsTools ? `writes calls in a form other than ${START}` : 'has no tools'
    throw new RequestError(400, `tools: the chat template of this model ${reason}`, 'tools', 'tools_not_supported')
  }
  if (typeof choice !== 'object' || choice === null) return tools
  const { name } = choice.function
  const named = tools.filter((tool) => tool.function.name === name)
  if (named.length > 0) return named
  throw new RequestError(400, `tool_choice: no tool is called ${name}`, 'tool_choice.function.name', 'unknown_tool')
}

const callTag = ({ function: { name, parameters = { type: 'object' } } }: Tool): TaggedJson => ({
  begin: `${START}\n{"name": ${JSON.stringify(name)}, "arguments": `,
  schema: parameters,
  end: `}\n${END}`
})

/** The form of an answer that must call a tool, and of calls that a model may make: the arguments are JSON of their schema. */
export const toolFormat = (request: ChatRequest, info: EngineInfo): ResponseFormat | undefined => {
  const { tool_choice: choice, parallel_tool_calls: parallel } = request
  const tools = toolsOf(request, info)
  const isRequired = choice === 'required' || (typeof choice === 'object' && choice !== null)
  const isStrict = tools.some((tool) => tool.function.strict === true)
  if (tools.length === 0 || !(isRequired || isStrict)) return undefined
  const isSingle = parallel === false || isRequired
  return { toolCalls: { trigger: START, tags: tools.map(callTag), isRequired, isSingle } }
}

/** A call from the JSON of an answer; undefined where the JSON is not a call of one of the tools. */
const parseCall = (json: string, names: readonly string[]): ToolCall | undefined => {
  try {
    const { name, arguments: given = {} } = JSON.parse(json) as { readonly name?: unknown; readonly arguments?: unknown }
    if (typeof name !== 'string' || !names.includes(name)) return undefined
    const id = `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`
    return { id, type: 'function', function: { name, arguments: typeof given === 'string' ? given : JSON.stringify(given) } }
  } catch {
    return undefined
  }
}

/** New text and new calls of an answer. */
export interface ParsedPiece {
  readonly text: string
  readonly calls: readonly ToolCall[]
}

/** Separates the calls of tools from the text of an answer, piece by piece. */
export interface ToolCallParser {
  readonly push: (text: string) => ParsedPiece
  /** The rest of the answer; a call that is incomplete or of an unknown tool stays text. */
  readonly end: () => ParsedPiece
}

/** Length of the longest end of `text` that is a beginning of `word`. */
const partialLength = (text: string, word: string): number => {
  for (let n = Math.min(text.length, word.length - 1); n > 0; n--) if (word.startsWith(text.slice(-n))) return n
  return 0
}

/** A parser of the calls of `tools`; without tools all text is text. */
export const toolCallParser = (tools: readonly Tool[]): ToolCallParser => {
  const names = tools.map((tool) => tool.function.name)
  let buffer = ''
  let hasCalls = false
  /** White space around calls belongs to no text. */
  const shown = (text: string): string => (hasCalls ? text.trim() : text)
  const next = (isLast: boolean): ParsedPiece => {
    const start = buffer.indexOf(START)
    const end = start < 0 ? -1 : buffer.indexOf(END, start)
    if (end >= 0) {
      const call = parseCall(buffer.slice(start + START.length, end), names)
      const before = buffer.slice(0, start)
      const raw = buffer.slice(start, end + END.length)
      buffer = buffer.slice(end + END.length)
      const text = call ? shown(before.trimEnd()) : shown(before) + raw
      hasCalls ||= call !== undefined
      const rest = next(isLast)
      return { text: text + rest.text, calls: [...(call ? [call] : []), ...rest.calls] }
    }
    // white space is kept back: it may stand before a call
    const held = start >= 0 ? buffer.length - start : partialLength(buffer, START)
    const visible = buffer.slice(0, buffer.length - held)
    const upTo = isLast ? buffer.length : visible.trimEnd().length
    const text = shown(buffer.slice(0, upTo))
    buffer = buffer.slice(upTo)
    return { text, calls: [] }
  }
  if (names.length === 0) return { push: (text) => ({ text, calls: [] }), end: () => ({ text: '', calls: [] }) }
  return {
    push: (text) => {
      buffer += text
      return next(false)
    },
    end: () => next(true)
  }
}
