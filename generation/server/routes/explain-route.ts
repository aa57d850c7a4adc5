import type { z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { asyncQueue } from '../../engine/async-queue.js'
import type { RequestOptions } from '../../engine/engine-types.js'
import type { explainRequest } from '../protocol/chat-request.js'
import { mediaFields, patchesFor, toMessages } from '../protocol/request-messages.js'
import type { ServerEnv } from '../request-log.js'
import { checkAccepting, checkModel, type ServerContext, withGuards } from '../server-context.js'
import { toRequestError } from '../server-errors.js'
import { callingWithin } from './other-routes.js'
import { sseResponse } from './sse-response.js'

/** The explanation as the client gets it. Reports the work done and in total. */
type Explain = (onProgress?: (done: number, total: number) => void) => Promise<object>

/** The data of the stream: progress, the explanation, `[DONE]`. */
async function* dataOf(first: IteratorResult<object, void>, events: AsyncIterator<object, void>): AsyncGenerator<string> {
  for (let next = first; !next.done; next = await events.next()) yield JSON.stringify(next.value)
  yield '[DONE]'
}

const tooLong = (seconds: number): string =>
  `The explanation took longer than ${seconds} s, the limit of this server; ask for fewer cells or steps.`

/** Server-sent events of an explanation; wrong input throws before the stream begins. */
const streamExplanation = async (c: Context<ServerEnv>, explain: Explain, onLeave: () => void): Promise<Response> => {
  const queue = asyncQueue<object>()
  explain((done, total) => queue.push({ object: 'explanation.progress', done, total })).then((explanation) => {
    queue.push(explanation)
    queue.end()
  }, queue.fail)
  const events = queue[Symbol.asyncIterator]()
  const first = await events.next()
  const [log, { path }] = [c.get('log'), c.req]
  return sseResponse(c, dataOf(first, events), {
    onLeave,
    onError: (error) => {
      const { status, body } = toRequestError(error)
      if (status === 499) log.info({ path, status }, 'stream')
      else log.error({ err: error }, 'stream')
      return JSON.stringify(body)
    }
  })
}

/** `POST /v1/explain`: a heat map over the image for each word of the answer. */
export const explainConversation = async (
  c: Context<ServerEnv>,
  context: ServerContext,
  request: z.infer<typeof explainRequest>
): Promise<Response> => {
  const { model, messages, max_patches, stream, ...asked } = request
  checkModel(context, model)
  checkAccepting(context)
  const media = mediaFields(messages)
  const maxPatches = max_patches ?? patchesFor(media)
  const given = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined && value !== null))
  const options = withGuards(context, (maxPatches ? { maxPatches } : {}) as RequestOptions)
  const input = { ...given, messages: toMessages(messages), options }
  const left = new AbortController()
  const gone = AbortSignal.any([c.req.raw.signal, left.signal])
  const explain: Explain = async (onProgress) => {
    const call = (signal: AbortSignal) => context.engine.explain(input, signal, onProgress)
    const { parts, ...rest } = await callingWithin(context, call, media, gone, tooLong)
    const data = parts.map(({ jpeg, ...part }) => ({ ...part, heat_map: `data:image/jpeg;base64,${jpeg}` }))
    return { object: 'explanation', model: context.modelName, ...rest, data }
  }
  return stream ? streamExplanation(c, explain, () => left.abort()) : c.json(await explain())
}
