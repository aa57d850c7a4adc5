import { randomUUID } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'
import { type Logger, pino } from 'pino'
import type { ServerOptions } from './server-options.js'

/** Values that a request's handlers share. */
export interface RequestVariables {
  readonly requestId: string
  readonly log: Logger
}

export type ServerEnv = { readonly Variables: RequestVariables }

/** The log: one line of JSON each event, on standard error. Headers and bodies are not written. */
export const createLogger = ({ logLevel = 'info', logTo }: Pick<ServerOptions, 'logLevel' | 'logTo'>): Logger =>
  pino({ level: logLevel, base: null }, logTo ?? pino.destination({ fd: 2, sync: true }))

/** Gives every request an id, which its answer has as `x-request-id`, and writes a line at its end. */
export const logRequests =
  (logger: Logger, onEnd: (route: string, status: number, seconds: number) => void): MiddlewareHandler<ServerEnv> =>
  async (c, next) => {
    const requestId = `req_${randomUUID().replaceAll('-', '')}`
    const log = logger.child({ requestId })
    c.set('requestId', requestId)
    c.set('log', log)
    c.header('x-request-id', requestId)
    const start = performance.now()
    await next()
    const seconds = (performance.now() - start) / 1000
    onEnd(c.req.routePath, c.res.status, seconds)
    const { method, path } = c.req
    const level = path === '/health' || path === '/metrics' ? 'debug' : 'info'
    log[level]({ method, path, status: c.res.status, seconds: Number(seconds.toFixed(3)) }, 'request')
  }
