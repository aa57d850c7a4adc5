/** A server with OpenAI's API (`internvl-tfjs/server`). */
export { type RunningServer, serve } from './serve.js'
export type { ErrorBody, ErrorType } from './server-errors.js'
export type { ServerLimits, ServerOptions } from './server-options.js'
