import { randomUUID } from 'node:crypto'
import { QueueFullError } from './engine-errors.js'
import { toPlainData } from './plain-data.js'
import { type CallName, type FromProcess, fromSentError, type ToProcess } from './protocol.js'

/** Signal and progress of a call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((done: number, total: number) => void) | undefined
}

interface PendingCall extends Pick<CallOptions, 'onProgress'> {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
  readonly send: () => void
}

/** Calls other than requests: sent when the process is ready, failed when it ends. Throws a `QueueFullError` for too many. */
export const callList = (sendToProcess: (message: ToProcess) => void, maxCalls: number) => {
  const pending = new Map<string, PendingCall>()
  const failAll = (error: Error): void => {
    for (const { reject } of pending.values()) reject(error)
    pending.clear()
  }
  return {
    call: (name: CallName, args: readonly unknown[], { signal, onProgress }: CallOptions): Promise<unknown> =>
      new Promise((resolve, reject) => {
        if (pending.size >= maxCalls) throw new QueueFullError(maxCalls, 1)
        signal?.throwIfAborted()
        const { value, loaded } = toPlainData(args, name)
        const id = randomUUID()
        const onAbort = (): void => {
          if (pending.delete(id)) sendToProcess({ type: 'abort', id })
          reject(signal?.reason)
        }
        const settled =
          <A>(settle: (value: A) => void) =>
          (value: A): void => {
            signal?.removeEventListener('abort', onAbort)
            settle(value)
          }
        signal?.addEventListener('abort', onAbort, { once: true })
        const send = (): void => sendToProcess({ type: 'call', id, name, args: value })
        const enqueue = (): void => {
          if (signal?.aborted) return
          pending.set(id, { resolve: settled(resolve), reject: settled(reject), send, onProgress })
          send()
        }
        if (loaded) loaded.then(enqueue, settled(reject))
        else enqueue()
      }),
    onReturned: ({ id, value, error }: Extract<FromProcess, { readonly type: 'returned' }>): void => {
      const call = pending.get(id)
      pending.delete(id)
      if (error) call?.reject(fromSentError(error))
      else call?.resolve(value)
    },
    /** Progress that was sent before the abort of its call is left out, for the call is no longer pending. */
    onProgress: ({ id, done, total }: Extract<FromProcess, { readonly type: 'progress' }>): void =>
      pending.get(id)?.onProgress?.(done, total),
    sendAll: (): void => {
      for (const { send } of pending.values()) send()
    },
    failAll
  }
}
