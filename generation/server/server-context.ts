import type { EngineInfo, GenerationEngine, RequestOptions } from '../engine/engine-types.js'
import { RequestError } from './server-errors.js'
import type { ServerMetrics } from './server-metrics.js'

/** The parts that all routes share. */
export interface ServerContext {
  readonly engine: GenerationEngine
  /** Name of the model in answers. */
  readonly modelName: string
  /** Unix time in seconds. */
  readonly started: number
  readonly metrics: ServerMetrics
  /** Options that a request cannot change: sources and sizes of media. */
  readonly guarded: RequestOptions
  readonly maxSeconds: number
  readonly maxBodyBytes: number
  readonly logPrompts: boolean
  readonly isDraining: () => boolean
}

export const unixSeconds = (): number => Math.floor(Date.now() / 1000)

/** Throws a `RequestError` where a request names another model; a request without a name, or with an empty one, means the one model. */
export const checkModel = ({ modelName, engine }: ServerContext, model: string | null | undefined): void => {
  if (!model || model === modelName || model === engine.info.model) return
  const message = `model: ${JSON.stringify(model.slice(0, 100))} is not served here; the model is ${JSON.stringify(modelName)}`
  throw new RequestError(404, message, 'model', 'model_not_found')
}

/** Throws a `RequestError` once the server is stopping. */
export const checkAccepting = ({ isDraining }: ServerContext): void => {
  if (isDraining()) throw new RequestError(503, 'The server is stopping.', null, 'stopping', { 'retry-after': '5' })
}

/** The last part of a folder or of `org/name`. */
export const modelNameOf = ({ model }: Pick<EngineInfo, 'model'>): string => model.split(/[\\/]/).filter(Boolean).at(-1) ?? model

/** `request_options` over which the guarded options always win. */
export const withGuards = ({ guarded }: ServerContext, options: RequestOptions): RequestOptions => ({ ...options, ...guarded })
