import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import { createEngine } from '../engine/create-engine.js'
import type { GenerationEngine } from '../engine/engine-types.js'
import { createApp } from './create-app.js'
import { createLogger } from './request-log.js'
import { modelNameOf, type ServerContext, unixSeconds } from './server-context.js'
import { serverMetrics } from './server-metrics.js'
import { checkExposure, guardedOptions, type ServerOptions, serverLimits } from './server-options.js'

/** A server that listens. */
export interface RunningServer {
  /** Such as `http://127.0.0.1:8000`. */
  readonly url: string
  readonly modelName: string
  readonly engine: GenerationEngine
  /** Accepts no new request, lets the accepted ones end within `drainSeconds`, and ends the engine. */
  readonly close: () => Promise<void>
}

const listen = (server: Server, port: number, host: string): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => resolve())
  })

/** Stops listening; connections that answer nothing are closed at once, the others after their answer, or after `seconds`. */
const stopListening = (server: Server, seconds: number): Promise<void> =>
  new Promise((resolve) => {
    const idle = setInterval(() => server.closeIdleConnections(), 50)
    const last = setTimeout(() => server.closeAllConnections(), seconds * 1000)
    server.close(() => {
      clearInterval(idle)
      clearTimeout(last)
      resolve()
    })
    server.closeIdleConnections()
  })

const httpServer = (fetch: (request: Request) => Response | Promise<Response>, options: ServerOptions): Server => {
  const { headerSeconds, requestSeconds } = serverLimits(options.limits)
  const serverOptions = {
    headersTimeout: Math.min(headerSeconds, requestSeconds) * 1000,
    requestTimeout: requestSeconds * 1000,
    keepAliveTimeout: 5000,
    connectionsCheckingInterval: Math.min(1000, headerSeconds * 500),
    maxHeaderSize: 16 * 1024
  }
  return createAdaptorServer({ fetch, serverOptions, overrideGlobalObjects: false }) as Server
}

/** Options of the engine among those of the server. */
const engineOptions = (options: ServerOptions) => {
  const { model: _m, modelName: _n, host: _h, port: _p, apiKeys: _k, insecure: _i, mediaDomains: _d, ...rest } = options
  const { mediaPolicy: _mp, corsOrigins: _c, limits: _l, ui: _u, logPrompts: _lp, logLevel: _ll, logTo: _lt, ...more } = rest
  const { drainSeconds: _ds, ...engine } = more
  return engine
}

/**
 * Loads a model and serves it with OpenAI's API: chat completions with images and videos, streams, tools, JSON schemas, embeddings.
 * Resolves when the server listens. Throws a `RangeError` for an address that others reach without a key, and the errors of
 * `createEngine`.
 *
 * `const server = await serve({ model: 'OpenGVLab/InternVL3_5-1B-HF', quantize: 'int8' })`
 */
export const serve = async (options: ServerOptions = {}): Promise<RunningServer> => {
  checkExposure(options)
  const { host = '127.0.0.1', port = 8000, drainSeconds = 30, logPrompts = false } = options
  const { maxSeconds, maxBodyBytes } = serverLimits(options.limits)
  const logger = createLogger(options)
  const onWarning = options.onWarning ?? ((text: string) => logger.warn(text))
  const guarded = guardedOptions(options)
  const engine = await createEngine(options.model, { ...engineOptions(options), onWarning })
  let isDraining = false
  const context: ServerContext = {
    ...{ engine, guarded, maxSeconds, maxBodyBytes, logPrompts },
    modelName: options.modelName ?? (options.model === undefined ? 'internvl-demo' : modelNameOf(engine.info)),
    started: unixSeconds(),
    metrics: serverMetrics(engine),
    isDraining: () => isDraining
  }
  const app = createApp(context, options, logger)
  const server = httpServer((request) => app.fetch(request), options)
  try {
    await listen(server, port, host)
  } catch (error) {
    await engine.close()
    throw error
  }
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => {
    isDraining = true
    closed ??= (async () => {
      await stopListening(server, drainSeconds)
      await engine.close({ drain: true, timeout: drainSeconds * 1000 })
    })()
    return closed
  }
  const { port: bound } = server.address() as AddressInfo
  return { url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}`, modelName: context.modelName, engine, close }
}
