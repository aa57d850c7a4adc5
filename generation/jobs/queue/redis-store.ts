import type { Redis } from 'ioredis'
import type { HashStore } from './hash-store.js'

/** Fields of one round trip. */
const PAGE = 500

/** Hashes in Redis. Commands that a lost connection left unanswered are sent again, so each of them may run twice. */
export const redisStore = (redis: Redis): HashStore => ({
  setNew: async (key, entries) => {
    await Promise.all(entries.map(([field, value]) => redis.hsetnx(key, field, value)))
  },
  set: async (key, entries) => {
    if (entries.length > 0) await redis.hset(key, entries.flat())
  },
  get: async (key, fields) => (fields.length === 0 ? [] : (await redis.hmget(key, ...fields)).map((value) => value ?? undefined)),
  delete: async (key, fields) => {
    if (fields.length > 0) await redis.hdel(key, ...fields)
  },
  increment: (key, field) => redis.hincrby(key, field, 1),
  count: (key) => redis.hlen(key),
  scan: async function* (key) {
    let cursor = '0'
    do {
      const [next, found] = await redis.hscan(key, cursor, 'COUNT', PAGE)
      for (let i = 0; i < found.length; i += 2) yield [found[i]!, found[i + 1]!] as const
      cursor = next
    } while (cursor !== '0')
  },
  drop: async (keys) => {
    await redis.unlink(...keys)
  },
  close: async () => {
    await redis.quit().catch(() => redis.disconnect())
  }
})
