import { randomUUID } from 'node:crypto'
import type { Context } from 'hono'
import type { EngineEvent, EngineHandle } from '../../engine/engine-types.js'
import { chunkMaker } from '../protocol/chat-chunks.js'
import { formatField, toRequestOptions } from '../protocol/chat-options.js'
import type { ChatRequest } from '../protocol/chat-request.js'
import { type AnswerHead, toCompletion } from '../protocol/chat-response.js'
import { mediaFields, mediaParam, toMessages } from '../protocol/request-messages.js'
import { toolsOf } from '../protocol/tools/tool-choice.js'
import { answerParser } from '../protocol/tools/tool-syntax.js'
import type { ServerEnv } from '../request-log.js'
import { checkAccepting, checkModel, type ServerContext, unixSeconds, withGuards } from '../server-context.js'
import { RequestError, toRequestError } from '../server-errors.js'
import { sseResponse } from './sse-response.js'

/** Waits until the prompt is prepared, so that wrong input is answered with a status instead of a stream. */
const firstEvent = async (events: AsyncIterator<EngineEvent>): Promise<EngineEvent | undefined> => {
  const { done, value } = await events.next()
  return done ? undefined : value
}

async function* chunks(
  first: EngineEvent | undefined,
  events: AsyncIterator<EngineEvent>,
  toChunks: (event: EngineEvent) => readonly object[],
  onFinished: (event: Extract<EngineEvent, { readonly type: 'finished' }>) => void
): AsyncGenerator<string> {
  try {
    for (let event = first; event !== undefined; event = await firstEvent(events)) {
      for (const chunk of toChunks(event)) yield JSON.stringify(chunk)
      if (event.type === 'finished') onFinished(event)
    }
    yield '[DONE]'
  } finally {
    await events.return?.()
  }
}

/** Submits the request; a client that leaves, and the time limit, abort it. */
const submit = (context: ServerContext, request: ChatRequest, signal: AbortSignal): EngineHandle => {
  const { engine, maxSeconds } = context
  const { n, num_beams: beams } = request
  const { maxBatch } = engine.stats()
  for (const [name, rows] of [
    ['n', n ?? 1],
    ['num_beams', beams ?? 1]
  ] as const)
    if (rows > maxBatch)
      throw new RequestError(400, `${name}: at most ${maxBatch} here (--max-batch), got ${rows}`, name, 'too_large')
  return engine.submit({
    messages: toMessages(request.messages),
    options: withGuards(context, toRequestOptions(request, engine.info)),
    signal: AbortSignal.any([signal, AbortSignal.timeout(maxSeconds * 1000)])
  })
}

/** `POST /v1/chat/completions`. */
export const answerChat = async (c: Context<ServerEnv>, context: ServerContext, request: ChatRequest): Promise<Response> => {
  checkModel(context, request.model)
  checkAccepting(context)
  const log = c.get('log')
  const { info } = context.engine
  const names = toolsOf(request, info).map((tool) => tool.function.name)
  const makeParser = () => answerParser(info.chatTemplate, names)
  const head: AnswerHead = {
    id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
    created: unixSeconds(),
    model: context.modelName
  }
  const errorFields = {
    mediaParam: mediaParam(mediaFields(request.messages)),
    optionFields: { responseFormat: formatField(request, info) }
  }
  const left = new AbortController()
  const signal = AbortSignal.any([c.req.raw.signal, left.signal])
  if (context.logPrompts) log.info({ messages: request.messages }, 'messages')
  try {
    const handle = submit(context, request, signal)
    const onFinished = ({ usage, timings }: Pick<Extract<EngineEvent, { type: 'finished' }>, 'usage' | 'timings'>): void => {
      const { newTokens, prompt } = usage
      context.metrics.onAnswer(usage, timings)
      log.info({ promptTokens: prompt.total, imageTokens: prompt.image, reused: prompt.reused, newTokens, ...timings }, 'answer')
    }
    if (!request.stream) {
      const result = await handle.result()
      onFinished(result)
      if (context.logPrompts) log.info({ answers: result.choices.map(({ text }) => text) }, 'answers')
      return c.json(toCompletion(head, result, makeParser))
    }
    const events = handle[Symbol.asyncIterator]()
    const first = await firstEvent(events)
    const toChunks = chunkMaker(head, { makeParser, includeUsage: request.stream_options?.include_usage === true })
    return sseResponse(c, chunks(first, events, toChunks, onFinished), {
      onLeave: () => left.abort(),
      onError: (error) => {
        const failure = toRequestError(error, errorFields)
        log.error({ err: error }, 'stream')
        return JSON.stringify(failure.body)
      }
    })
  } catch (error) {
    throw toRequestError(error, errorFields)
  }
}
