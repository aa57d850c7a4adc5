import { type ConnectionOptions, createPostgresBackend, type Processor, Queue, Worker, type WorkerOptions } from 'bullmq'
import { InternVLError, issue } from '../../../lib/error.js'
import type { HashStore } from './hash-store.js'
import type { Chunk } from './job-chunk.js'
import { postgresStore } from './postgres-store.js'
import { redisStore } from './redis-store.js'

/** A queue server: jobs of BullMQ, and hashes. */
export interface QueueConnection {
  /** The address without its password. */
  readonly name: string
  readonly store: HashStore
  readonly queue: (run: string) => Queue<Chunk>
  readonly worker: (run: string, process: Processor<Chunk>, options: Omit<WorkerOptions, 'connection'>) => Worker<Chunk>
  readonly close: () => Promise<void>
}

/** Milliseconds to reach the server for the first time. */
const CONNECT_TIMEOUT = 5000

const fail = (name: string, message: string): never => {
  throw new InternVLError([issue('Queue', `--queue ${name}: ${message}`, { queue: name })])
}

const parseAddress = (address: string): { readonly url: URL; readonly name: string } => {
  const url = URL.canParse(address) ? new URL(address) : undefined
  const protocols = ['redis:', 'rediss:', 'postgres:', 'postgresql:']
  if (!url || !protocols.includes(url.protocol) || url.hostname === '')
    return fail(address.replace(/:[^:@/]+@/, ':***@'), 'expected an address such as redis://localhost:6379')
  const shown = new URL(url)
  if (shown.password) shown.password = '***'
  return { url, name: shown.href }
}

/** The reason of a refused connection in a few words. */
const reasonOf = (error: unknown): string => {
  const { code, message = String(error) } = error as { readonly code?: string; readonly message?: string }
  const inner = (error as { readonly errors?: readonly unknown[] }).errors?.[0]
  return code ?? (inner ? reasonOf(inner) : message)
}

const unreachable = (name: string, error: unknown): never =>
  fail(name, `the queue cannot be reached (${reasonOf(error)}); start its server, or check address and password`)

const connectRedis = async (url: URL, name: string) => {
  const { Redis } = await import('ioredis')
  let isConnected = false
  const connection = {
    maxRetriesPerRequest: null, // a restarted server continues the work
    connectTimeout: CONNECT_TIMEOUT,
    retryStrategy: (times: number) => (isConnected ? Math.min(2000, 100 * times) : null)
  }
  const redis = new Redis(url.href, { ...connection, lazyConnect: true, enableAutoPipelining: true })
  let failure: unknown
  redis.on('error', (error) => {
    failure = error
  })
  try {
    await redis.connect()
    await redis.ping()
  } catch (error) {
    redis.disconnect()
    return unreachable(name, failure ?? error)
  }
  isConnected = true
  return { store: redisStore(redis), connection: { ...connection, url: url.href } as ConnectionOptions }
}

const connectPostgres = async (url: URL, name: string) => {
  const { default: pg } = await import('pg').catch(() => fail(name, 'PostgreSQL needs the package pg; npm install pg'))
  const pool = new pg.Pool({ connectionString: url.href, connectionTimeoutMillis: CONNECT_TIMEOUT })
  pool.on('error', () => undefined) // an idle connection that was lost is replaced
  try {
    return { store: await postgresStore(pool), connection: { connectionString: url.href, migrate: true } }
  } catch (error) {
    await pool.end()
    return unreachable(name, error)
  }
}

/**
 * Connects to a queue server, `redis://` (Redis 7, Valkey) or `postgres://`. Throws an `InternVLError` with one sentence if the server
 * cannot be reached; a connection that is lost later is made again.
 */
export const connectQueue = async (address: string): Promise<QueueConnection> => {
  const { url, name } = parseAddress(address)
  const isRedis = url.protocol.startsWith('redis')
  const { store, connection } = isRedis ? await connectRedis(url, name) : await connectPostgres(url, name)
  const opened: Pick<Queue, 'close'>[] = []
  const added = <A extends Queue<Chunk> | Worker<Chunk>>(one: A): A => {
    const queue = one as unknown as Queue
    queue.on('error', () => undefined) // BullMQ connects again; without a listener the process would end
    opened.push(queue)
    return one
  }
  const queueOptions = { connection, defaultJobOptions: { removeOnComplete: { count: 100 } } }
  const queues = new Map<string, Queue<Chunk>>()
  const newQueue = (run: string): Queue<Chunk> =>
    added(
      (isRedis
        ? new Queue(run, queueOptions as ConstructorParameters<typeof Queue>[1])
        : new Queue(run, queueOptions as never, createPostgresBackend as never)) as unknown as Queue<Chunk>
    )
  return {
    ...{ name, store },
    queue: (run) => {
      const queue = queues.get(run) ?? newQueue(run)
      queues.set(run, queue)
      return queue
    },
    worker: (run, process, options) => {
      const workerOptions = { ...options, connection }
      return added(
        (isRedis
          ? new Worker(run, process, workerOptions as WorkerOptions)
          : new Worker(run, process, workerOptions as never, createPostgresBackend as never)) as unknown as Worker<Chunk>
      )
    },
    close: async () => {
      await Promise.all(opened.map((one) => one.close().catch(() => undefined)))
      await store.close()
    }
  }
}
