import { randomUUID } from 'node:crypto'
import { emitWarning } from 'node:process'
import { withPlainFormat } from '../structured/response-format.js'
import { type CallOptions, callList } from './call-list.js'
import { EngineClosedError, EngineCrashedError } from './engine-errors.js'
import { engineSettings } from './engine-settings.js'
import type { CreateEngineOptions, EngineInfo, EngineRequest, GenerationEngine, ProcessStats } from './engine-types.js'
import { toPlainData } from './plain-data.js'
import type { CallName, FromProcess } from './protocol.js'
import { requestQueue } from './request-queue.js'
import { type Supervisor, supervise } from './supervisor.js'

/** Numbers of answers and of rows in the batch that a request has. */
const sizesOf = ({ options }: EngineRequest, { defaults }: EngineInfo, maxBatch: number) => {
  const { numReturnSequences = 1, numBeams = 1 } = { ...defaults, ...options }
  const count = (n: unknown): number => (Number.isSafeInteger(n) ? Math.min(4096, Math.max(1, n as number)) : 1) // checked by the process
  return { choices: count(numReturnSequences), rows: Math.min(maxBatch, Math.max(count(numReturnSequences), count(numBeams))) }
}

/**
 * Loads a model in a process of its own and answers many requests at once: the caller's event loop stays free, requests join and leave
 * the decoding batch between steps, and a process that crashes is started again. `model` is a folder or `org/name` of the hub, by
 * default the embedded demo model. Resolves when the model is loaded. Throws the `InternVLError` of `load`, an `EngineFailedError` if
 * the process ends while it loads, and a `RangeError` for an option.
 *
 * `const { choices } = await engine.submit({ messages, options: { maxNewTokens: 64 } }).result()`
 */
export const createEngine = async (model?: string, options: CreateEngineOptions = {}): Promise<GenerationEngine> => {
  const { maxBatch, maxQueue, maxRestarts, restartBackoff, processOptions } = engineSettings(options)
  const { onWarning = emitWarning, signal } = options
  signal?.throwIfAborted()
  let processStats: ProcessStats | undefined
  let failure: Error | undefined
  let info: EngineInfo | undefined
  let isClosing = false
  let closed: Promise<void> | undefined
  let supervisor: Supervisor
  const calls = callList((message) => supervisor.send(message), maxBatch + maxQueue)
  const queue = requestQueue({
    ...{ maxBatch, maxQueue },
    isReady: () => supervisor.state() === 'ready',
    send: (message) => supervisor.send(message),
    onSuccess: () => supervisor.onSuccess()
  })
  const onMessage = (message: Exclude<FromProcess, { readonly type: 'ready' | 'load-failed' }>): void => {
    if (message.type === 'warning') onWarning(message.text)
    else if (message.type === 'returned') calls.onReturned(message)
    else if (message.type === 'progress') calls.onProgress(message)
    else {
      processStats = message.stats ?? processStats
      for (const event of message.events) queue.onMessage(event)
    }
  }
  const failAll = (error: Error): void => {
    failure = error
    queue.failAll(error)
    calls.failAll(error)
  }
  const loaded = await new Promise<EngineInfo>((resolve, reject) => {
    const onSignal = (): void => {
      void supervisor.end(true)
      reject(signal?.reason)
    }
    supervisor = supervise({
      load: { type: 'load', model, options: processOptions },
      ...{ maxRestarts, restartBackoff, onMessage },
      onReady: (ready) => {
        signal?.removeEventListener('abort', onSignal)
        info = ready
        resolve(ready)
        queue.pump()
        calls.sendAll()
      },
      onCrash: (reason) => {
        processStats = undefined
        queue.onCrash(reason)
        calls.failAll(new EngineCrashedError(reason))
      },
      onFailed: (error) => {
        signal?.removeEventListener('abort', onSignal)
        failAll(error)
        reject(error)
      }
    })
    signal?.addEventListener('abort', onSignal, { once: true })
  })
  const checkOpen = (): void => {
    if (isClosing) throw new EngineClosedError()
    if (failure) throw failure
  }
  const close: GenerationEngine['close'] = ({ drain = false, timeout } = {}) => {
    isClosing = true
    if (!drain) queue.abortAll()
    closed ??= (async () => {
      const timer = timeout === undefined ? undefined : setTimeout(queue.abortAll, timeout)
      await queue.whenIdle()
      clearTimeout(timer)
      await supervisor.end()
      calls.failAll(new EngineClosedError())
    })()
    return closed
  }
  const call = async (name: CallName, args: readonly unknown[], callOptions: CallOptions = {}): Promise<unknown> => {
    checkOpen()
    return calls.call(name, args, callOptions)
  }
  return {
    get info() {
      return info ?? loaded
    },
    submit: ({ signal: requestSignal, ...request }) => {
      checkOpen()
      const plain = toPlainData(withPlainFormat(request), 'request')
      const sizes = sizesOf(request, loaded, maxBatch)
      const state = queue.add({ id: randomUUID(), request: plain.value, loaded: plain.loaded, ...sizes })
      if (requestSignal?.aborted) state.abort()
      else if (requestSignal) {
        requestSignal.addEventListener('abort', state.abort, { once: true })
        const forget = (): void => requestSignal.removeEventListener('abort', state.abort)
        state.handle.result().then(forget, forget)
      }
      return state.handle
    },
    tokenize: (request) => call('tokenize', [request]) as ReturnType<GenerationEngine['tokenize']>,
    tiling: (request) => call('tiling', [request]) as ReturnType<GenerationEngine['tiling']>,
    detokenize: (ids, decodeOptions) => call('detokenize', [ids, decodeOptions]) as Promise<string>,
    embed: (images, embedOptions, embedSignal) =>
      call('embed', [images, embedOptions], { signal: embedSignal }) as ReturnType<GenerationEngine['embed']>,
    explain: async (request, explainSignal, onProgress) => {
      const { value, loaded: media } = toPlainData(request, 'request')
      await media
      return call('explain', [value], { signal: explainSignal, onProgress }) as ReturnType<GenerationEngine['explain']>
    },
    stats: () => {
      const { restarts, pid, state } = supervisor
      const current = state()
      const shown = current === 'ended' ? ('closed' as const) : isClosing ? ('closing' as const) : current
      return { state: shown, pid: pid(), restarts: restarts(), maxBatch, maxQueue, ...queue.counts(), process: processStats }
    },
    close,
    [Symbol.asyncDispose]: () => close()
  }
}
