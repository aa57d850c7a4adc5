import type { OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import {
  chatRequest,
  detokenizeRequest,
  embeddingsRequest,
  explainRequest,
  tilesRequest,
  tokenizeRequest
} from '../protocol/chat-request.js'
import { readJson } from '../read-json.js'
import type { ServerEnv } from '../request-log.js'
import type { ServerContext } from '../server-context.js'
import { RequestError, schemaError } from '../server-errors.js'
import { answerChat } from './chat-route.js'
import { explainConversation } from './explain-route.js'
import { describeModel, detokenize, embedImages, health, tiles, tokenize } from './other-routes.js'

const ok = (description: string, type = 'application/json') => ({
  200: { description, content: { [type]: { schema: {} } } },
  '4XX': { description: 'An error in the shape of OpenAI: { error: { message, type, param, code } }.' }
})

/** Adds a route that reads JSON of a schema. */
const post = <S extends z.ZodType>(
  app: OpenAPIHono<ServerEnv>,
  { maxBodyBytes }: ServerContext,
  path: string,
  [summary, answer]: readonly [summary: string, answer: string],
  schema: S,
  handle: (c: Context<ServerEnv>, body: z.infer<S>) => Promise<Response>
): void => {
  const body = { required: true, content: { 'application/json': { schema } } }
  app.openAPIRegistry.registerPath({ method: 'post', path, summary, request: { body }, responses: ok(answer) })
  app.post(path, async (c) => {
    const { success, data, error } = schema.safeParse(await readJson(c.req.raw, maxBodyBytes))
    if (!success) throw schemaError(error.issues)
    return handle(c, data)
  })
}

const get = (
  app: OpenAPIHono<ServerEnv>,
  path: string,
  [summary, answer]: readonly [summary: string, answer: string],
  handle: (c: Context<ServerEnv>) => Response | Promise<Response>,
  type = 'application/json'
): void => {
  app.openAPIRegistry.registerPath({ method: 'get', path, summary, responses: ok(answer, type) })
  app.get(path, handle)
}

/** Adds all routes of the API. */
export const addApiRoutes = (app: OpenAPIHono<ServerEnv>, context: ServerContext): void => {
  get(app, '/health', ['State of the server', '200 while the server can answer, else 503.'], (c) => health(c, context))
  get(app, '/v1/models', ['List of the one model', 'The model.'], (c) =>
    c.json({ object: 'list', data: [describeModel(context)] })
  )
  app.get('/v1/models/:model{.+}', (c) => {
    if (c.req.param('model') !== context.modelName)
      throw new RequestError(404, `model: only ${context.modelName} is served here`, 'model', 'model_not_found')
    return c.json(describeModel(context))
  })
  get(
    app,
    '/metrics',
    ['Metrics for Prometheus', 'Metrics as text.'],
    async (c) => c.text(await context.metrics.text(), 200, { 'content-type': context.metrics.contentType }),
    'text/plain'
  )
  post(
    app,
    context,
    '/v1/chat/completions',
    ['Answer to a conversation', 'The answer, or a stream of chunks.'],
    chatRequest,
    (c, body) => answerChat(c, context, body)
  )
  post(app, context, '/v1/embeddings', ['Embeddings of images', 'One vector for each image.'], embeddingsRequest, (c, body) =>
    embedImages(c, context, body)
  )
  post(
    app,
    context,
    '/tokenize',
    ['Token ids of a conversation or a text', 'Token ids and their number.'],
    tokenizeRequest,
    (c, body) => tokenize(c, context, body)
  )
  post(
    app,
    context,
    '/v1/explain',
    [
      'Heat maps of an answer over an image',
      'The answer, and for each word its tokens and its heat map as a data URL; with stream: true server-sent events, progress first.'
    ],
    explainRequest,
    (c, body) => explainConversation(c, context, body)
  )
  post(
    app,
    context,
    '/tiles',
    ['Tiles of the images and videos of a conversation', 'Size, grid and tokens of each.'],
    tilesRequest,
    (c, body) => tiles(c, context, body)
  )
  post(app, context, '/detokenize', ['Text of token ids', 'The text.'], detokenizeRequest, (c, body) =>
    detokenize(c, context, body)
  )
}
