import { type ChatChunk, type ChatSettings, type Medium, questionMessage } from './exchange.js'
import { sseEvents } from './sse-events.js'

/** The served model. */
export interface ServedModel {
  readonly id: string
  readonly max_model_len: number
  readonly precision: string
  readonly engine: string
  readonly parameters: number
}

/** Tiles of an image, or frames of a video, as the model gets them. */
export interface Tiling {
  readonly type: 'image' | 'video'
  readonly tiles: number
  readonly tile_width: number
  readonly tile_height: number
  readonly tokens_per_tile: number
  readonly tokens: number
  readonly has_thumbnail: boolean
  readonly width?: number
  readonly height?: number
  readonly columns?: number
  readonly rows?: number
}

/** The heat map of a token over an image, whose gray version it contains; `heat_map` is a data URL. */
export interface HeatMap {
  readonly text: string
  readonly method: string
  readonly heat_map: string
}

/** An answer of the server that is an error. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message)
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const apiError = async (response: Response): Promise<ApiError> => {
  const body = (await response.json().catch(() => undefined)) as { readonly error?: { readonly message?: string } } | undefined
  return new ApiError(response.status, body?.error?.message ?? `The server answered with status ${response.status}.`)
}

/** Sends a request; paths are relative, so that the page works behind a proxy's prefix. */
const send = async (path: string, key: string, init: RequestInit = {}): Promise<Response> => {
  const headers = { 'content-type': 'application/json', ...(key === '' ? {} : { authorization: `Bearer ${key}` }) }
  const response = await fetch(path, { ...init, headers }).catch((error: Error) => {
    throw error.name === 'AbortError' ? error : new ApiError(0, 'The server does not answer; is it still running?')
  })
  if (!response.ok) throw await apiError(response)
  return response
}

export const fetchModel = async (key: string): Promise<ServedModel> => {
  const { data } = (await (await send('v1/models', key)).json()) as { readonly data: readonly ServedModel[] }
  return data[0]!
}

/** The tiles of one image or video. */
export const fetchTiling = async (medium: Medium, { maxPatches, numFrames }: ChatSettings, key: string): Promise<Tiling> => {
  const body = {
    messages: [questionMessage({ media: [medium], question: '' })],
    ...(maxPatches === undefined ? {} : { max_patches: maxPatches }),
    ...(numFrames === undefined ? {} : { num_frames: numFrames })
  }
  const response = await send('tiles', key, { method: 'POST', body: JSON.stringify(body) })
  const { data } = (await response.json()) as { readonly data: readonly Tiling[] }
  return data[0]!
}

/** The bytes of a body; Safari has no iterator for them. */
async function* bytesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader()
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error
    throw new ApiError(0, 'The answer broke off: the connection to the server was lost.')
  } finally {
    await reader.cancel().catch(() => undefined) // a broken stream
  }
}

/** The chunks of a streamed answer. Throws an `ApiError`, and an `AbortError` after an abort. */
export async function* streamChunks(body: object, key: string, signal: AbortSignal): AsyncGenerator<ChatChunk> {
  const response = await send('v1/chat/completions', key, { method: 'POST', body: JSON.stringify(body), signal })
  for await (const data of sseEvents(bytesOf(response.body!))) yield JSON.parse(data) as ChatChunk
}

/** Share of the work of a heat map that is done. */
export interface HeatProgress {
  readonly done: number
  readonly total: number
}

/** An event of the stream of `POST /v1/explain`. */
type ExplainEvent =
  | ({ readonly object: 'explanation.progress' } & HeatProgress)
  | { readonly object: 'explanation'; readonly method: string; readonly data: readonly Omit<HeatMap, 'method'>[] }
  | { readonly object?: undefined; readonly error: { readonly message: string } }

/** The heat map of the one token that a request to explain an answer names. Throws an `ApiError`, and an `AbortError` after an abort. */
export const fetchHeatMap = async (
  body: object,
  key: string,
  signal: AbortSignal,
  onProgress: (progress: HeatProgress) => void
): Promise<HeatMap> => {
  const response = await send('v1/explain', key, { method: 'POST', body: JSON.stringify({ ...body, stream: true }), signal })
  for await (const text of sseEvents(bytesOf(response.body!))) {
    const event = JSON.parse(text) as ExplainEvent
    if (event.object === 'explanation') return { ...event.data[0]!, method: event.method }
    if (event.object === undefined) throw new ApiError(200, event.error.message)
    onProgress(event)
  }
  throw new ApiError(0, 'The heat map broke off: the connection to the server was lost.')
}
