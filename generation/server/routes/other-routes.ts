import type { z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import type { RequestOptions } from '../../engine/engine-types.js'
import type { detokenizeRequest, embeddingsRequest, tilesRequest, tokenizeRequest } from '../protocol/chat-request.js'
import { mediaFields, mediaParam, patchesFor, toMessages } from '../protocol/request-messages.js'
import { toolsOf } from '../protocol/tools/tool-choice.js'
import type { ServerEnv } from '../request-log.js'
import { checkAccepting, checkModel, type ServerContext, withGuards } from '../server-context.js'
import { RequestError, toRequestError } from '../server-errors.js'

/** Runs a call of the engine; its errors name the field of `media`. `signal` is the one that the call gets. */
export const calling = async <A>(
  call: () => Promise<A>,
  media: Parameters<typeof mediaParam>[0] = [],
  signal?: AbortSignal
): Promise<A> => {
  try {
    return await call()
  } catch (error) {
    if (signal?.aborted) throw new RequestError(499, 'The client has left.', null, 'left')
    throw toRequestError(error, { mediaParam: mediaParam(media) })
  }
}

/** `calling` within the server's limit of seconds; `tooLong` is the message of the error 504 after the limit. */
export const callingWithin = async <A>(
  { maxSeconds }: Pick<ServerContext, 'maxSeconds'>,
  call: (signal: AbortSignal) => Promise<A>,
  media: Parameters<typeof mediaParam>[0],
  left: AbortSignal,
  tooLong: (seconds: number) => string
): Promise<A> => {
  const limit = AbortSignal.timeout(maxSeconds * 1000)
  const signal = AbortSignal.any([left, limit])
  return calling(() => call(signal), media, signal).catch((error) => {
    throw limit.aborted ? new RequestError(504, tooLong(maxSeconds), null, 'time_limit') : error
  })
}

/** `GET /health`: 200 while the server can answer, else 503. */
export const health = (c: Context<ServerEnv>, { engine, modelName, isDraining }: ServerContext): Response => {
  const { state, running, waiting, restarts } = engine.stats()
  const status = isDraining() ? 'draining' : state
  return c.json({ status, model: modelName, running, waiting, restarts }, status === 'ready' ? 200 : 503)
}

/** One model of `GET /v1/models`, with what a client may want to know of it. */
export const describeModel = ({ engine: { info }, modelName, started }: ServerContext) => ({
  id: modelName,
  object: 'model' as const,
  created: started,
  owned_by: 'internvl-tfjs',
  max_model_len: info.contextLength,
  model_type: info.modelType,
  precision: info.precision,
  engine: info.engine,
  parameters: info.parameters,
  supports_tools: info.supportsTools
})

const tooLong = (seconds: number): string =>
  `The embeddings took longer than ${seconds} s, the limit of this server; send fewer images.`

/** `POST /v1/embeddings`: one vector for each image. */
export const embedImages = async (
  c: Context<ServerEnv>,
  context: ServerContext,
  { model, input, encoding_format, max_patches }: z.infer<typeof embeddingsRequest>
): Promise<Response> => {
  checkModel(context, model)
  checkAccepting(context)
  const images = typeof input === 'string' ? [input] : input
  const media = images.map((url, i) => ({
    url,
    param: typeof input === 'string' ? 'input' : `input[${i}]`,
    detail: 'auto' as const
  }))
  const options = withGuards(context, max_patches ? { maxPatches: max_patches } : {})
  const embed = (signal: AbortSignal) => context.engine.embed(images, options, signal)
  const { vectors, tiles } = await callingWithin(context, embed, media, c.req.raw.signal, tooLong)
  const toEmbedding = (vector: readonly number[]) =>
    encoding_format === 'base64' ? Buffer.from(Float32Array.from(vector).buffer).toString('base64') : vector
  const data = vectors.map((vector, index) => ({ object: 'embedding' as const, index, embedding: toEmbedding(vector) }))
  const usage = { prompt_tokens: 0, total_tokens: 0, tiles: tiles.reduce((sum, n) => sum + n, 0) }
  return c.json({ object: 'list', data, model: context.modelName, usage })
}

/** `POST /tokenize`: token ids of a conversation or of a text. */
export const tokenize = async (
  c: Context<ServerEnv>,
  context: ServerContext,
  request: z.infer<typeof tokenizeRequest>
): Promise<Response> => {
  const { model, messages, prompt, tools, max_patches } = request
  checkModel(context, model)
  const { engine } = context
  const asked = tools?.length && messages ? toolsOf({ messages, tools }, engine.info) : []
  const options = withGuards(context, {
    ...(max_patches ? { maxPatches: max_patches } : {}),
    ...(asked.length > 0 ? { tools: asked } : {})
  } as RequestOptions)
  const input = messages ? { messages: toMessages(messages) } : { prompt: { text: prompt ?? '' } }
  const { ids, imageTokens } = await calling(() => engine.tokenize({ ...input, options }), messages ? mediaFields(messages) : [])
  const { contextLength } = engine.info
  return c.json({ tokens: ids, count: ids.length, image_tokens: imageTokens, max_model_len: contextLength })
}

/** `POST /tiles`: the tiles of every image and video of a conversation, in order. */
export const tiles = async (
  c: Context<ServerEnv>,
  context: ServerContext,
  request: z.infer<typeof tilesRequest>
): Promise<Response> => {
  const { model, messages, max_patches, num_frames: numFrames, fps } = request
  checkModel(context, model)
  const media = mediaFields(messages)
  const maxPatches = max_patches ?? patchesFor(media)
  const asked = Object.entries({ maxPatches, numFrames, fps }).filter(([, value]) => value !== undefined && value !== null)
  const options = withGuards(context, Object.fromEntries(asked) as RequestOptions)
  const tilings = await calling(() => context.engine.tiling({ messages: toMessages(messages), options }), media)
  const data = tilings.map(({ kind, tiles, tileSize, tokensPerTile, hasThumbnail, layout }) => ({
    type: kind,
    tiles,
    tile_width: tileSize.width,
    tile_height: tileSize.height,
    tokens_per_tile: tokensPerTile,
    tokens: tiles * tokensPerTile,
    has_thumbnail: hasThumbnail,
    ...layout
  }))
  return c.json({ object: 'list', data, tokens: data.reduce((sum, { tokens }) => sum + tokens, 0) })
}

/** `POST /detokenize`: the text of token ids. */
export const detokenize = async (
  c: Context<ServerEnv>,
  context: ServerContext,
  { model, tokens }: z.infer<typeof detokenizeRequest>
): Promise<Response> => {
  checkModel(context, model)
  const { vocabSize } = context.engine.info
  const unknown = tokens.findIndex((id) => id >= vocabSize)
  if (unknown >= 0) {
    const field = `tokens[${unknown}]`
    throw new RequestError(400, `${field}: the vocabulary has the tokens 0 to ${vocabSize - 1}`, field, 'unknown_token')
  }
  return c.json({ prompt: await calling(() => context.engine.detokenize(tokens)) })
}
