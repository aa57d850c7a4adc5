import type { Context } from 'hono'
import type { ServerEnv } from '../request-log.js'

interface SseHandlers {
  /** The client has left. */
  readonly onLeave: () => void
  /** Data of the last event after an error. */
  readonly onError: (error: unknown) => string
}

/** Milliseconds without data after which a comment keeps the connection open. */
const KEEP_ALIVE = 15_000

/**
 * Server-sent events, one for each text of `data`. The generator is read as fast as the client reads, and left when the client leaves.
 */
export const sseResponse = (c: Context<ServerEnv>, data: AsyncGenerator<string>, { onLeave, onError }: SseHandlers): Response => {
  const encoder = new TextEncoder()
  let timer: NodeJS.Timeout | undefined
  let isClosed = false
  const stop = (): void => {
    isClosed = true
    clearInterval(timer)
  }
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      timer = setInterval(() => controller.enqueue(encoder.encode(': waiting\n\n')), KEEP_ALIVE)
    },
    pull: async (controller) => {
      const send = (text: string): void => {
        if (!isClosed) controller.enqueue(encoder.encode(`data: ${text}\n\n`))
      }
      const close = (): void => {
        if (!isClosed) controller.close()
        stop()
      }
      try {
        const { done, value } = await data.next()
        if (done) close()
        else {
          timer?.refresh()
          send(value)
        }
      } catch (error) {
        send(onError(error))
        close()
      }
    },
    cancel: async () => {
      stop()
      onLeave()
      await data.return(undefined)
    }
  })
  c.header('content-type', 'text/event-stream; charset=utf-8')
  c.header('cache-control', 'no-store')
  c.header('x-accel-buffering', 'no')
  return c.body(body)
}
