/** Values that one side pushes and the other side iterates over. */
export interface AsyncQueue<T> extends AsyncIterable<T> {
  readonly push: (value: T) => void
  /** No value follows. Later calls of `end` and `fail` do nothing. */
  readonly end: () => void
  /** The iteration throws this error after the values pushed before. */
  readonly fail: (error: unknown) => void
  readonly isEnded: () => boolean
}

/** An unbounded queue for one consumer. `onLeave` is called if the consumer leaves before the end (`break`). */
export const asyncQueue = <T>(onLeave: () => void = () => undefined): AsyncQueue<T> => {
  const values: T[] = []
  let ended: { readonly error?: unknown } | undefined
  let wake: (() => void) | undefined
  const finish = (how: { readonly error?: unknown }): void => {
    ended ??= how
    wake?.()
  }
  async function* iterate(): AsyncGenerator<T, void, void> {
    let isComplete = false
    try {
      while (true) {
        if (values.length > 0) yield values.shift()!
        else if (ended) break
        else await new Promise<void>((resolve) => (wake = resolve))
      }
      isComplete = true
      if (ended && 'error' in ended) throw ended.error
    } finally {
      if (!isComplete) onLeave()
    }
  }
  return {
    push: (value) => {
      if (ended) return
      values.push(value)
      wake?.()
    },
    end: () => finish({}),
    fail: (error) => finish({ error }),
    isEnded: () => ended !== undefined,
    [Symbol.asyncIterator]: iterate
  }
}
