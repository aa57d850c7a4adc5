import { emitWarning } from 'node:process'
import { tf } from '../../../lib/tf.js'
import { load } from '../../checkpoint/load.js'
import { featureCache } from '../../feature-cache.js'
import type { ProcessStats } from '../engine-types.js'
import { preparerThread } from '../prepare/prepare-thread.js'
import { type FromProcess, type ProcessOptions, type RequestMessage, type ToProcess, toSentError } from '../protocol.js'
import { type CallContext, engineCalls } from './engine-calls.js'
import { describeCheckpoint } from './engine-info.js'
import { importProcessors } from './named-processors.js'
import { prefixCache } from './prefix-cache.js'
import type { RequestContext } from './request-context.js'
import { runRequest } from './run-request.js'
import { createScheduler } from './scheduler.js'

// The process of `createEngine`: reads `ToProcess` messages, and sends `FromProcess` messages.

const [STATS_INTERVAL, PROGRESS_INTERVAL] = [250, 250] // milliseconds

const send = (message: FromProcess): void => {
  if (process.connected) process.send!(message)
}

/** Sends events together that arise together. */
const outbox = (stats: () => ProcessStats) => {
  let messages: RequestMessage[] = []
  let sentAt = Number.NEGATIVE_INFINITY
  const flush = (): void => {
    const events = messages
    messages = []
    const now = performance.now()
    const isDue = now - sentAt >= STATS_INTERVAL || events.some((message) => 'done' in message)
    if (isDue) sentAt = now
    send({ type: 'events', events, ...(isDue ? { stats: stats() } : {}) })
  }
  return (message: RequestMessage): void => {
    if (messages.push(message) === 1) queueMicrotask(flush) // not after the next step, which blocks the event loop
  }
}

/** Sends the progress of a call: the first and the last, and the others at most every 250 ms; none after an abort of `signal`. */
const progressSender = (id: string, signal: AbortSignal) => {
  let sentAt = Number.NEGATIVE_INFINITY
  return (done: number, total: number): void => {
    const now = performance.now()
    if (signal.aborted || (done < total && now - sentAt < PROGRESS_INTERVAL)) return
    sentAt = now
    send({ type: 'progress', id, done, total })
  }
}

/** Loads the model and returns the handlers of the other messages. */
const start = async (model: string | undefined, options: ProcessOptions) => {
  const { defaults = {}, prefixCacheBytes = 512 * 2 ** 20, featureCacheBytes, prefillChunkSize = 256, ...loadOptions } = options
  const begin = performance.now()
  const processors = await importProcessors(options.processorModules)
  const onWarning = (text: string): void => send({ type: 'warning', text })
  const internvl = await load(model, { ...loadOptions, onWarning })
  const { dir, config } = internvl
  const prepare = preparerThread({ dir, vocabSize: config.textConfig.vocabSize, imageBackend: options.imageBackend })
  await prepare.tokenize({ promptIds: [0] }, {}) // the first request does not wait for the thread
  const tensorsOfModel = tf.memory()
  const scheduler = createScheduler(internvl.model)
  const prefixes = prefixCache(prefixCacheBytes)
  const features = featureCache(internvl.model, featureCacheBytes === undefined ? {} : { maxBytes: featureCacheBytes })
  const keepsPrefixes = prefixCacheBytes > 0
  const context: RequestContext = {
    ...{ internvl, prepare, scheduler, prefixes, features, processors, defaults, prefillChunkSize, keepsPrefixes }
  }
  const stats = (): ProcessStats => {
    const { entries, bytes, encoded } = features.counts()
    const [memory, prefixCache] = [tf.memory(), prefixes.size()]
    return {
      ...scheduler.counts(),
      encodedTiles: encoded,
      prefixCache,
      featureCache: { entries, bytes },
      tensors: memory.numTensors - tensorsOfModel.numTensors - prefixCache.tensors,
      tensorBytes: memory.numBytes - tensorsOfModel.numBytes - prefixCache.bytes,
      rss: process.memoryUsage.rss()
    }
  }
  const post = outbox(stats)
  const running = new Map<string, AbortController>()
  send({ type: 'ready', info: describeCheckpoint(internvl, model, defaults, (performance.now() - begin) / 1000) })
  return {
    run: async ({ id, request }: Extract<ToProcess, { readonly type: 'run' }>): Promise<void> => {
      const controller = new AbortController()
      running.set(id, controller)
      try {
        await runRequest(context, id, request, controller.signal, (event) => post({ id, event }))
        post({ id, done: true })
      } catch (error) {
        post({ id, done: true, error: toSentError(error) })
      } finally {
        running.delete(id)
      }
    },
    abort: ({ id }: Extract<ToProcess, { readonly type: 'abort' }>): void => running.get(id)?.abort(),
    call: async ({ id, name, args }: Extract<ToProcess, { readonly type: 'call' }>): Promise<void> => {
      const controller = new AbortController()
      running.set(id, controller)
      try {
        const call = engineCalls[name] as (context: CallContext, ...args: readonly unknown[]) => Promise<unknown>
        const { signal } = controller
        const callContext = { ...context, signal, sendProgress: progressSender(id, signal) }
        send({ type: 'returned', id, value: await call(callContext, ...args) })
      } catch (error) {
        send({ type: 'returned', id, error: toSentError(error) })
      } finally {
        running.delete(id)
      }
    }
  }
}

let started: Awaited<ReturnType<typeof start>> | undefined

process.on('message', (message: ToProcess) => {
  if (message.type === 'load')
    start(message.model, message.options)
      .then((handlers) => {
        started = handlers
      })
      .catch((error: unknown) => send({ type: 'load-failed', error: toSentError(error) }))
  else if (message.type === 'run') void started?.run(message)
  else if (message.type === 'abort') started?.abort(message)
  else void started?.call(message)
})
process.on('disconnect', () => process.exit(0)) // the engine was closed, or its process ended
process.on('SIGINT', () => undefined) // Ctrl-C reaches the whole group of processes; the engine decides when this one ends
process.on('unhandledRejection', (error) => emitWarning(String(error)))
