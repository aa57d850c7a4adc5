import type {
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4FinishReason,
  LanguageModelV4StreamPart,
  LanguageModelV4ToolCall,
  LanguageModelV4Usage
} from '@ai-sdk/provider'
import type { FinishReason } from '../decoding/stopping.js'
import type { EngineHandle, GenerationEngine, RequestOptions, Usage } from '../engine/engine-types.js'
import { toRequestOptions } from '../server/protocol/chat-options.js'
import { toMessages } from '../server/protocol/request-messages.js'
import { type ParsedPiece, parseRest, type ToolCall, type ToolCallParser } from '../server/protocol/tools/tool-call-parser.js'
import { toolsOf } from '../server/protocol/tools/tool-choice.js'
import { answerParser } from '../server/protocol/tools/tool-syntax.js'
import { type CallRequest, toCallRequest } from './call-request.js'

const toUsage = ({ prompt, newTokens }: Usage): LanguageModelV4Usage => ({
  inputTokens: { total: prompt.total, noCache: prompt.computed, cacheRead: prompt.reused, cacheWrite: undefined },
  outputTokens: { total: newTokens, text: newTokens, reasoning: undefined },
  raw: { imageTokens: prompt.image, tiles: prompt.tiles }
})

const toFinishReason = (raw: FinishReason, hasCalls: boolean): LanguageModelV4FinishReason => {
  if (raw === 'length') return { unified: 'length', raw }
  if (raw === 'aborted') return { unified: 'other', raw }
  return { unified: hasCalls ? 'tool-calls' : 'stop', raw }
}

const toToolCall = ({ id, function: { name, arguments: input } }: ToolCall): LanguageModelV4ToolCall => ({
  type: 'tool-call',
  toolCallId: id,
  toolName: name,
  input
})

const callParts = (call: ToolCall): readonly LanguageModelV4StreamPart[] => [
  { type: 'tool-input-start', id: call.id, toolName: call.function.name },
  { type: 'tool-input-delta', id: call.id, delta: call.function.arguments },
  { type: 'tool-input-end', id: call.id },
  toToolCall(call)
]

/** A call that the engine has accepted. */
interface AcceptedCall {
  readonly handle: EngineHandle
  readonly parser: ToolCallParser
  readonly warnings: CallRequest['warnings']
}

/** The parts of a stream, in the order that the AI SDK expects. */
async function* streamParts(
  { handle, parser, warnings }: AcceptedCall,
  signal: AbortSignal | undefined
): AsyncGenerator<LanguageModelV4StreamPart> {
  const started = new Set<'text' | 'reasoning'>()
  let hasCalls = false
  let reason: FinishReason = 'eos'
  const textParts = (kind: 'text' | 'reasoning', delta: string): readonly LanguageModelV4StreamPart[] => {
    if (delta === '') return []
    const start = started.has(kind) ? [] : [{ type: `${kind}-start` as const, id: kind }]
    started.add(kind)
    return [...start, { type: `${kind}-delta` as const, id: kind, delta }]
  }
  const parts = ({ text, calls, reasoning = '' }: ParsedPiece): readonly LanguageModelV4StreamPart[] => {
    hasCalls ||= calls.length > 0
    return [...textParts('reasoning', reasoning), ...textParts('text', text), ...calls.flatMap(callParts)]
  }
  yield { type: 'stream-start', warnings: [...warnings] }
  for await (const event of handle) {
    if (event.type === 'token' || event.type === 'choice') yield* parts(parser.push(event.text))
    if (event.type === 'choice') {
      yield* parts(parser.end())
      reason = event.finishReason
    }
    if (event.type !== 'finished') continue
    if (signal?.aborted) throw signal.reason
    for (const kind of started) yield { type: `${kind}-end` as const, id: kind }
    yield { type: 'finish', usage: toUsage(event.usage), finishReason: toFinishReason(reason, hasCalls) }
  }
}

/** A stream of the values of a generator, which is left when the reader cancels. */
const toStream = <A>(values: AsyncGenerator<A>): ReadableStream<A> =>
  new ReadableStream({
    pull: async (controller) => {
      const { done, value } = await values.next()
      if (done) controller.close()
      else controller.enqueue(value)
    },
    cancel: async () => void (await values.return(undefined))
  })

/**
 * A language model of the AI SDK that answers by an engine, without HTTP. `providerOptions.internvl` of a call are options of the
 * engine, such as `maxPatches` or `templateVariables`.
 *
 * `const { text } = await generateText({ model: languageModel(engine), messages })`
 *
 * Source: `LanguageModelV4` (@ai-sdk/provider 4).
 */
export const languageModel = (engine: GenerationEngine, modelId = engine.info.model): LanguageModelV4 => {
  const submit = (options: LanguageModelV4CallOptions): AcceptedCall => {
    options.abortSignal?.throwIfAborted()
    const { request, warnings } = toCallRequest(options)
    const handle = engine.submit({
      messages: toMessages(request.messages),
      options: {
        ...toRequestOptions(request, engine.info),
        ...(options.providerOptions?.internvl as RequestOptions | undefined)
      },
      signal: options.abortSignal
    })
    const names = toolsOf(request, engine.info).map((tool) => tool.function.name)
    return { handle, parser: answerParser(engine.info.chatTemplate, names), warnings }
  }
  return {
    specificationVersion: 'v4',
    provider: 'internvl',
    modelId,
    supportedUrls: { 'image/*': [/^https?:\/\//], 'video/*': [/^https?:\/\//] },
    doGenerate: async (options) => {
      const { handle, parser, warnings } = submit(options)
      const { choices, usage } = await handle.result()
      options.abortSignal?.throwIfAborted()
      const { text: answer, finishReason } = choices[0]!
      const { text, calls, reasoning } = parseRest(parser, answer)
      const content: LanguageModelV4Content[] = [
        ...(reasoning === undefined ? [] : [{ type: 'reasoning' as const, text: reasoning }]),
        ...(text === '' ? [] : [{ type: 'text' as const, text }]),
        ...calls.map(toToolCall)
      ]
      return {
        content,
        finishReason: toFinishReason(finishReason, calls.length > 0),
        usage: toUsage(usage),
        warnings: [...warnings]
      }
    },
    doStream: async (options) => ({ stream: toStream(streamParts(submit(options), options.abortSignal)) })
  }
}
