import { createBullBoard } from '@bull-board/api'
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter'
import { HonoAdapter } from '@bull-board/hono'
import { serve } from '@hono/node-server'
import { serveStatic } from '@hono/node-server/serve-static'
import { Hono } from 'hono'
import { InternVLError, issue } from '../../../lib/error.js'
import type { QueueConnection } from './queue-connection.js'
import { runNames } from './run-info.js'

/** A page that shows the jobs of all runs. */
export interface Dashboard {
  readonly url: string
  readonly close: () => Promise<void>
}

/** Milliseconds between two looks for new runs. */
const POLL = 2000

/**
 * Serves bull-board on this machine alone (127.0.0.1), without a password, to look at: jobs cannot be changed there. Throws an
 * `InternVLError` for a port that is in use.
 */
export const startDashboard = async (connection: QueueConnection, port: number): Promise<Dashboard> => {
  const adapter = new HonoAdapter(serveStatic)
  const board = createBullBoard({ queues: [], serverAdapter: adapter, options: { uiConfig: { boardTitle: 'internvl jobs' } } })
  const shown = new Set<string>()
  const update = async (): Promise<void> => {
    for (const name of await runNames(connection.store)) {
      if (shown.has(name)) continue
      shown.add(name)
      board.addQueue(new BullMQAdapter(connection.queue(name), { readOnlyMode: true }))
    }
  }
  await update()
  const app = new Hono().route('/', adapter.registerPlugin())
  const server = await new Promise<ReturnType<typeof serve>>((resolve, reject) => {
    const started = serve({ fetch: app.fetch, port, hostname: '127.0.0.1' }, () => resolve(started))
    started.on('error', ({ code, message }: NodeJS.ErrnoException) => {
      const reason = code === 'EADDRINUSE' ? 'the port is in use; give another, or 0 for a free one' : (code ?? message)
      reject(new InternVLError([issue('Port', `--dashboard ${port}: ${reason}`)]))
    })
  })
  const timer = setInterval(() => void update().catch(() => undefined), POLL)
  const address = server.address()
  const close = (): Promise<void> => {
    clearInterval(timer)
    return new Promise((resolve) => {
      server.close(() => resolve())
      if ('closeAllConnections' in server) server.closeAllConnections()
    })
  }
  return { url: `http://127.0.0.1:${typeof address === 'object' && address ? address.port : port}`, close }
}
