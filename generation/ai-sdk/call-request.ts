import type {
  LanguageModelV4CallOptions,
  LanguageModelV4FilePart,
  LanguageModelV4Message,
  LanguageModelV4ToolResultPart,
  SharedV4Warning
} from '@ai-sdk/provider'
import type { ChatMessage, ChatRequest, ContentPart, Tool } from '../server/protocol/chat-request.js'

/** A call of the AI SDK as a request of the server's API, and what of the call has no meaning here. */
export interface CallRequest {
  readonly request: ChatRequest
  readonly warnings: readonly SharedV4Warning[]
}

/** The URL of a file part: bytes become a data URL. Throws a `RangeError` for files that no model of this library reads. */
const fileUrl = ({ data, mediaType }: LanguageModelV4FilePart): string => {
  if (data.type === 'url') return data.url.href
  if (data.type !== 'data') throw new RangeError(`prompt: a file of type ${data.type} is not supported; give its bytes or a URL`)
  const base64 = typeof data.data === 'string' ? data.data : Buffer.from(data.data).toString('base64')
  return `data:${mediaType.endsWith('/*') ? '' : mediaType};base64,${base64}`
}

const filePart = (part: LanguageModelV4FilePart): ContentPart => {
  const [kind] = part.mediaType.split('/')
  if (kind === 'image') return { type: 'image_url', image_url: { url: fileUrl(part) } }
  if (kind === 'video') return { type: 'video_url', video_url: { url: fileUrl(part) } }
  throw new RangeError(`prompt: files of type ${part.mediaType} are not supported; give images or videos`)
}

/** The text of a tool's result for the chat template. */
const resultText = ({ output }: LanguageModelV4ToolResultPart): string => {
  if (output.type === 'execution-denied') return output.reason ?? 'The execution was denied.'
  if (output.type === 'text' || output.type === 'error-text') return output.value
  if (output.type === 'content') return output.value.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('\n')
  return JSON.stringify(output.value)
}

const assistantMessage = (content: Extract<LanguageModelV4Message, { readonly role: 'assistant' }>['content']): ChatMessage => {
  const text = content.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('')
  const calls = content.flatMap((part) =>
    part.type === 'tool-call'
      ? [
          {
            id: part.toolCallId,
            type: 'function' as const,
            function: { name: part.toolName, arguments: JSON.stringify(part.input) }
          }
        ]
      : []
  )
  return { role: 'assistant', content: text, ...(calls.length > 0 ? { tool_calls: calls } : {}) }
}

const toMessages = (message: LanguageModelV4Message): readonly ChatMessage[] => {
  if (message.role === 'system') return [{ role: 'system', content: message.content }]
  if (message.role === 'assistant') return [assistantMessage(message.content)]
  if (message.role === 'tool')
    return message.content.flatMap((part) =>
      part.type === 'tool-result' ? [{ role: 'tool' as const, tool_call_id: part.toolCallId, content: resultText(part) }] : []
    )
  return [{ role: 'user', content: message.content.map((part) => (part.type === 'text' ? part : filePart(part))) }]
}

const toTools = (tools: LanguageModelV4CallOptions['tools'] = []): readonly Tool[] =>
  tools.flatMap((tool) => {
    if (tool.type !== 'function') return []
    const { name, description, inputSchema, strict } = tool
    const parameters = inputSchema as Record<string, unknown>
    return [{ type: 'function', function: { name, parameters, strict, ...(description === undefined ? {} : { description }) } }]
  })

const toToolChoice = (choice: LanguageModelV4CallOptions['toolChoice']): ChatRequest['tool_choice'] =>
  choice?.type === 'tool' ? { type: 'function', function: { name: choice.toolName } } : choice?.type

const toResponseFormat = (format: LanguageModelV4CallOptions['responseFormat']): ChatRequest['response_format'] => {
  if (format?.type !== 'json') return undefined
  if (format.schema === undefined) return { type: 'json_object' }
  return { type: 'json_schema', json_schema: { schema: format.schema as Record<string, unknown> } }
}

/** Turns the options of a call into a request. Throws a `RangeError` for files other than images and videos. */
export const toCallRequest = (options: LanguageModelV4CallOptions): CallRequest => {
  const { tools, reasoning } = options
  const provided = (tools ?? []).filter(({ type }) => type !== 'function')
  const functions = toTools(tools)
  return {
    request: {
      messages: options.prompt.flatMap(toMessages),
      max_completion_tokens: options.maxOutputTokens,
      temperature: options.temperature,
      top_p: options.topP,
      top_k: options.topK,
      presence_penalty: options.presencePenalty,
      frequency_penalty: options.frequencyPenalty,
      seed: options.seed,
      stop: options.stopSequences?.length ? options.stopSequences : undefined,
      response_format: toResponseFormat(options.responseFormat),
      tools: functions.length > 0 ? [...functions] : undefined,
      tool_choice: functions.length > 0 ? toToolChoice(options.toolChoice) : undefined
    },
    warnings: [
      ...provided.map(({ name }): SharedV4Warning => ({ type: 'unsupported', feature: `provider tool ${name}` })),
      ...(reasoning === undefined || reasoning === 'provider-default'
        ? []
        : [{ type: 'unsupported' as const, feature: 'reasoning', details: 'Set templateVariables in providerOptions.internvl.' }])
    ]
  }
}
