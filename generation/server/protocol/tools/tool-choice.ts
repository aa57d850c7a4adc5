import type { EngineInfo } from '../../../engine/engine-types.js'
import type { ResponseFormat } from '../../../structured/response-format.js'
import { RequestError } from '../../server-errors.js'
import type { ChatRequest, Tool } from '../chat-request.js'
import { toolSyntaxNames, toolSyntaxOf } from './tool-syntax.js'

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
  if (!supportsTools || !toolSyntaxOf(chatTemplate)) {
    const reason = supportsTools ? `writes calls in none of the known forms (${toolSyntaxNames.join(', ')})` : 'has no tools'
    throw new RequestError(400, `tools: the chat template of this model ${reason}`, 'tools', 'tools_not_supported')
  }
  if (typeof choice !== 'object' || choice === null) return tools
  const { name } = choice.function
  const named = tools.filter((tool) => tool.function.name === name)
  if (named.length > 0) return named
  throw new RequestError(400, `tool_choice: no tool is called ${name}`, 'tool_choice.function.name', 'unknown_tool')
}

/** The form of an answer that must call a tool, and of calls that a model may make: the arguments are JSON of their schema. */
export const toolFormat = (request: ChatRequest, info: EngineInfo): ResponseFormat | undefined => {
  const { tool_choice: choice, parallel_tool_calls: parallel } = request
  const tools = toolsOf(request, info)
  const isRequired = choice === 'required' || (typeof choice === 'object' && choice !== null)
  const isStrict = tools.some((tool) => tool.function.strict === true)
  if (tools.length === 0 || !(isRequired || isStrict)) return undefined
  const isSingle = parallel === false || isRequired
  const { trigger, specialTokens, around } = toolSyntaxOf(info.chatTemplate)!
  const tags = tools.map(({ function: { name, parameters } }) => {
    const [begin, end] = around(name)
    return { begin, schema: parameters ?? { type: 'object' }, end }
  })
  return { toolCalls: { trigger, tags, specialTokens, isRequired, isSingle } }
}
