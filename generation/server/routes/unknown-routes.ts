import type { OpenAPIHono } from '@hono/zod-openapi'
import type { HonoRequest } from 'hono'
import type { ServerEnv } from '../request-log.js'
import { RequestError } from '../server-errors.js'

type App = OpenAPIHono<ServerEnv>

/**
 * A path of the server that a client may mean: with `/v1` once, without a slash at its end, and chat completions for the older and newer
 * endpoints of OpenAI.
 */
const meantPath = (path: string): string => {
  if (/.\/$/.test(path)) return path.slice(0, -1)
  if (path.startsWith('/v1/v1/')) return path.slice('/v1'.length)
  return /^\/v1\/(completions|responses)$/.test(path) ? '/v1/chat/completions' : `/v1${path}`
}

/** The answer to a path that does not exist, with the path that the client may mean. */
export const unknownRoute = (app: App, { method, path }: HonoRequest): RequestError => {
  const meant = meantPath(path)
  const hint = app.routes.some((route) => route.path === meant) ? `; the path is ${meant}` : ''
  return new RequestError(404, `${method} ${path.slice(0, 200)} does not exist${hint}.`, null, 'no_route')
}

/** Answers other methods of the paths that exist: 405, and the methods that they have. */
export const refuseOtherMethods = (app: App): void => {
  const methods = new Map<string, Set<string>>()
  for (const { path, method } of app.routes)
    if (method !== 'ALL') methods.set(path, (methods.get(path) ?? new Set<string>()).add(method))
  for (const [path, names] of methods) {
    const allow = [...names, ...(names.has('GET') ? ['HEAD'] : []), 'OPTIONS'].join(', ')
    app.all(path, (c) => {
      if (c.req.method === 'OPTIONS') return c.body(null, 204, { allow })
      const message = `${c.req.method} is no method of ${c.req.path.slice(0, 200)}; send ${[...names].join(' or ')}.`
      throw new RequestError(405, message, null, 'wrong_method', { allow })
    })
  }
}
