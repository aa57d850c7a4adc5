import assert from 'node:assert/strict'
import fc from 'fast-check'
import { EngineCrashedError, QueueFullError } from '../../../generation/engine/engine-errors.js'
import type { ToProcess } from '../../../generation/engine/protocol.js'
import { requestQueue } from '../../../generation/engine/request-queue.js'

const usage = { prompt: { total: 3, text: 3, image: 0, reused: 1, computed: 2, tiles: 0 }, encodedTiles: 0, newTokens: 2 }
const seconds = { prepare: 0, prefill: 0, decode: 0 }

/** A queue with a process that only remembers its messages. */
const testQueue = (maxBatch: number, maxQueue: number) => {
  const sent: ToProcess[] = []
  const process = { isReady: true }
  const queue = requestQueue({
    ...{ maxBatch, maxQueue },
    isReady: () => process.isReady,
    send: (message) => sent.push(message),
    onSuccess: () => undefined
  })
  const add = (id: string, rows = 1) => queue.add({ id, request: { promptIds: [1] }, loaded: undefined, rows, choices: rows })
  const finish = (id: string): void => {
    queue.onMessage({ id, event: { type: 'finished', usage, seconds } })
    queue.onMessage({ id, done: true })
  }
  return { queue, add, finish, sent, process }
}

describe('queue of an engine', () => {
  it('never gives the process more rows than maxBatch, refuses beyond maxQueue, and keeps the order', () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.nat(4),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 6 }), fc.constant('finish'), fc.constant('abort')), { maxLength: 40 }),
        (maxBatch, maxQueue, actions) => {
          const { queue, add, finish, sent } = testQueue(maxBatch, maxQueue)
          let added = 0
          const accepted: string[] = []
          const handles = new Map<string, ReturnType<typeof add>>()
          const running = (): string[] => {
            const ids = sent.flatMap((message) => (message.type === 'run' ? [message.id] : []))
            return ids.filter((id) => !done.has(id))
          }
          const done = new Set<string>()
          for (const action of actions) {
            const [oldest] = running()
            if (typeof action === 'number') {
              const id = String(added++)
              const { running: busy, waiting } = queue.counts()
              try {
                handles.set(id, add(id, Math.min(maxBatch, action)))
                accepted.push(id)
              } catch (error) {
                assert.ok(error instanceof QueueFullError && error.retryAfterSeconds >= 1)
                assert.ok(waiting === maxQueue && busy > 0)
              }
            } else if (oldest !== undefined) {
              if (action === 'abort') handles.get(oldest)!.abort()
              done.add(oldest)
              finish(oldest)
            }
            const { usedRows, running: count, waiting } = queue.counts()
            assert.ok(usedRows <= maxBatch && waiting <= maxQueue)
            assert.equal(count, running().length)
          }
          const sentIds = sent.flatMap((message) => (message.type === 'run' ? [message.id] : []))
          assert.deepEqual(sentIds, accepted.slice(0, sentIds.length))
          const { requests } = queue.counts()
          assert.equal(requests.accepted + requests.refused, added)
        }
      )
    ))

  it('a crash fails the requests of the process once; those that wait are sent to the next process', async () => {
    const { queue, add, finish, sent, process } = testQueue(2, 5)
    const [a, b, c] = ['a', 'b', 'c'].map((id) => add(id))
    queue.onMessage({ id: 'a', event: { type: 'token', choice: 0, token: 7, text: 'x' } })
    process.isReady = false
    queue.onCrash('signal SIGKILL')
    for (const lost of [a, b])
      await assert.rejects(lost!.handle.result(), (error) => error instanceof EngineCrashedError && /SIGKILL/.test(error.message))
    let events = 0
    await assert.rejects(async () => {
      for await (const _ of a!.handle) events++
    }, EngineCrashedError)
    assert.equal(events, 1)
    assert.deepEqual([queue.counts().running, queue.counts().waiting, queue.counts().requests.failed], [0, 1, 2])
    process.isReady = true
    queue.pump()
    assert.deepEqual(sent.at(-1), { type: 'run', id: 'c', request: { promptIds: [1] } })
    finish('a') // a late message of the first process
    finish('c')
    assert.equal((await c!.handle.result()).usage.newTokens, 2)
    await queue.whenIdle()
  })

  it('an abort answers the caller before the process has noticed it, and frees the rows only then', async () => {
    const { queue, add, sent } = testQueue(1, 5)
    const running = add('a', 1)
    const waiting = add('b', 1)
    const next = add('c', 1)
    waiting.abort()
    assert.equal((await waiting.handle.result()).choices[0]!.finishReason, 'aborted')
    queue.onMessage({ id: 'a', event: { type: 'token', choice: 0, token: 7, text: 'x' } })
    running.abort()
    running.abort()
    const { choices } = await running.handle.result()
    assert.deepEqual(choices, [{ text: 'x', tokens: [7], finishReason: 'aborted' }])
    assert.deepEqual(sent.slice(1), [{ type: 'abort', id: 'a' }])
    assert.deepEqual([queue.counts().usedRows, queue.counts().requests.aborted], [1, 2])
    queue.onMessage({ id: 'a', done: true })
    assert.equal((sent.at(-1) as { id: string }).id, 'c')
    next.abort()
  })

  it('leaving the iteration aborts the request', async () => {
    const { queue, add, sent } = testQueue(1, 5)
    const { handle } = add('a')
    for (let token = 0; token < 3; token++) queue.onMessage({ id: 'a', event: { type: 'token', choice: 0, token, text: '' } })
    for await (const event of handle) if (event.type === 'token' && event.token === 1) break
    assert.deepEqual(sent.at(-1), { type: 'abort', id: 'a' })
    assert.deepEqual((await handle.result()).choices[0]!.tokens, [0, 1, 2])
  })

  it('a request whose blob cannot be read fails, and the next is sent', async () => {
    const { queue, add, sent } = testQueue(1, 5)
    const bad = queue.add({ id: 'a', request: {}, loaded: Promise.reject(new Error('gone')), rows: 1, choices: 1 })
    add('b').abort()
    await assert.rejects(bad.handle.result(), /blob cannot be read.*gone/)
    add('c')
    assert.deepEqual(sent.map((message) => message.type === 'run' && message.id), ['c']) // biome-ignore format: one line
    queue.abortAll()
  })
})
