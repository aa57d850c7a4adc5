import { createServer, type Server } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import * as E from 'fp-ts/lib/Either.js'
import { type Issues, invalid } from '../error.js'
import { isListening, portOf } from './is-listening.js'

/** Listens on the port of an address of this machine. */
const listen = (address: string): Promise<E.Either<Issues, Server>> =>
  new Promise((done) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', ({ code }: NodeJS.ErrnoException) => {
      const reason = code === 'EADDRINUSE' ? 'the port is in use by another program' : `the port cannot be opened (${code})`
      done(invalid('PortInUse', `--workers: ${address}: ${reason}; choose another port for this worker`, { address }))
    })
    server.listen(portOf(address), '0.0.0.0', () => done(E.right(server)))
  })

export interface MeetOptions {
  readonly addresses: readonly string[]
  readonly rank: number
  readonly timeoutSeconds: number
  /** Called with the addresses that do not answer yet, when their number changes. */
  readonly onWaiting?: ((addresses: readonly string[]) => void) | undefined
}

/**
 * Waits until every worker listens on its port. TensorFlow itself waits for an hour, and neither says for whom nor can be interrupted.
 * Errors: a port of this worker that is in use, and the workers that did not come in time, by name.
 */
export const meetWorkers = async ({
  addresses,
  rank,
  timeoutSeconds,
  onWaiting
}: MeetOptions): Promise<E.Either<Issues, void>> => {
  const server = await listen(addresses[rank]!)
  if (E.isLeft(server)) return server
  const deadline = performance.now() + timeoutSeconds * 1000
  let missing = addresses.filter((_, i) => i !== rank)
  let announced = Number.POSITIVE_INFINITY
  try {
    for (;;) {
      const present = await Promise.all(missing.map(isListening))
      const still = missing.filter((_, i) => !present[i])
      if (still.length === 0) return E.right(undefined)
      if (still.length < announced) onWaiting?.(still)
      missing = still
      announced = still.length
      if (performance.now() > deadline) break
      await sleep(100)
    }
  } finally {
    await new Promise((done) => server.right.close(done))
  }
  const names = missing.map((address) => `worker ${addresses.indexOf(address)} (${address})`).join(', ')
  const advice = 'start every worker with the same --workers, and check addresses and firewalls'
  return invalid('WorkerMissing', `${names} did not come within ${timeoutSeconds} s; ${advice}`, { missing })
}
