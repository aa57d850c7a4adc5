import { type Command, InvalidArgumentError } from 'commander'
import type { QueueConnection } from '../../../jobs/queue/queue-connection.js'

/** Options of all `jobs` commands. */
export interface QueueFlags {
  readonly queue: string
  readonly name?: string
}

/** Adds `--queue` and `--name`. */
export const withQueueOptions = (command: Command, nameHelp = 'name of the run; default: the only run'): Command =>
  command
    .requiredOption('--queue <url>', 'address of the queue: redis://host:6379, rediss:// with TLS, or postgres://host/database')
    .option('--name <name>', nameHelp, (text) => {
      if (!/^[\w.-]{1,100}$/.test(text)) throw new InvalidArgumentError('Expected 1 to 100 letters, digits, _, - or .')
      return text
    })

/** Connects to the queue, and closes the connection after `work`. */
export const withQueue = async <A>({ queue }: QueueFlags, work: (connection: QueueConnection) => Promise<A>): Promise<A> => {
  const { connectQueue } = await import('../../../jobs/queue/queue-connection.js') // only these commands need BullMQ
  const connection = await connectQueue(queue)
  try {
    return await work(connection)
  } finally {
    await connection.close()
  }
}
