import { OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { cors } from 'hono/cors'
import { HTTPException } from 'hono/http-exception'
import type { Logger } from 'pino'
import { refuseForeignPages, requireKey } from './api-key.js'
import { readPage } from './page-file.js'
import { type ApiDocument, referencePage } from './reference-page.js'
import { logRequests, type ServerEnv } from './request-log.js'
import { addApiRoutes } from './routes/api-routes.js'
import { refuseOtherMethods, unknownRoute } from './routes/unknown-routes.js'
import type { ServerContext } from './server-context.js'
import { RequestError, toRequestError } from './server-errors.js'
import { isLoopback, type ServerOptions } from './server-options.js'

const SECURITY_HEADERS = { 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer', 'x-frame-options': 'DENY' }

const sendError = (c: Context<ServerEnv>, error: RequestError): Response => {
  for (const [name, value] of Object.entries(error.headers)) c.header(name, value)
  return c.json(error.body, error.status as 400)
}

/** Paths that need no key: they tell nothing that a key protects. */
const openPaths = ['/health', '/', '/reference', '/openapi.json']

/** The server as an app of hono: `app.fetch(request)` answers a request. */
export const createApp = (context: ServerContext, options: ServerOptions, logger: Logger): OpenAPIHono<ServerEnv> => {
  const { apiKeys = [], corsOrigins = [], host = '127.0.0.1', ui = true } = options
  const app = new OpenAPIHono<ServerEnv>()
  app.onError((error, c) => {
    const known = error instanceof HTTPException ? new RequestError(error.status, error.message) : toRequestError(error)
    if (known.status >= 500) c.get('log')?.error({ err: error }, 'error')
    return sendError(c, known)
  })
  app.notFound((c) => sendError(c, unknownRoute(app, c.req)))
  app.use(logRequests(logger, context.metrics.onRequest))
  app.use(async (c, next) => {
    await next()
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) c.res.headers.set(name, value)
  })
  if (apiKeys.length === 0 && isLoopback(host))
    app.use(refuseForeignPages([host === '::1' ? '[::1]' : host, 'localhost', '127.0.0.1', '[::1]'], corsOrigins))
  if (corsOrigins.length > 0) app.use(cors({ origin: corsOrigins.includes('*') ? '*' : [...corsOrigins] }))
  const checkKey = requireKey(apiKeys)
  app.use((c, next) => (openPaths.includes(c.req.path) ? next() : checkKey(c, next)))
  addApiRoutes(app, context)
  const info = { title: 'internvl serve', version: '1', description: `OpenAI's API for ${context.modelName}.` }
  const document = () => app.getOpenAPI31Document({ openapi: '3.1.0', info }) as unknown as ApiDocument
  app.get('/openapi.json', (c) => c.json(document()))
  app.get('/reference', (c) => c.html(referencePage(document())))
  if (ui)
    app.get('/', async (c) => {
      const page = await readPage((text) => logger.warn(text))
      return page === undefined ? c.redirect('/reference') : c.html(page)
    })
  refuseOtherMethods(app)
  return app
}
