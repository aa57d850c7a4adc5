/** Work that is done in small pieces: a prefill chunk by chunk, or a beam search step by step. */
export interface TurnTaker {
  /** Waits for the next turn. Resolves at once after an abort, because an aborted piece computes nothing. */
  readonly pause: () => Promise<void>
}

interface Waiting {
  readonly order: number
  readonly resume: () => void
}

/** Gives turns to pieces of work, so that one piece runs between two decoding steps. */
export interface TurnQueue {
  /** `first`: the oldest taker has every turn until its end, as prompts do. `rotate`: takers have turns one after the other. */
  readonly join: (kind: 'first' | 'rotate', signal?: AbortSignal) => TurnTaker
  /** Gives a turn to one taker of each kind; returns how many had one. */
  readonly next: () => number
  readonly isEmpty: () => boolean
}

/** A queue of turns; `onWait` is called when a taker begins to wait. */
export const turnQueue = (onWait: () => void): TurnQueue => {
  const waiting = { first: new Set<Waiting>(), rotate: new Set<Waiting>() }
  let joined = 0
  /** A taker of `rotate` stands behind the others again; one of `first` keeps the order in which it joined. */
  const oldest = (takers: Set<Waiting>): Waiting | undefined =>
    [...takers].reduce<Waiting | undefined>((a, b) => (a && a.order < b.order ? a : b), undefined)
  return {
    join: (kind, signal) => {
      const order = joined++
      return {
        pause: () =>
          new Promise((resolve) => {
            if (signal?.aborted) return resolve()
            const turn: Waiting = {
              order: kind === 'first' ? order : joined++,
              resume: () => {
                waiting[kind].delete(turn)
                signal?.removeEventListener('abort', turn.resume)
                resolve()
              }
            }
            waiting[kind].add(turn)
            signal?.addEventListener('abort', turn.resume)
            onWait()
          })
      }
    },
    next: () => {
      const turns = [oldest(waiting.first), oldest(waiting.rotate)].filter((turn) => turn !== undefined)
      for (const { resume } of turns) resume()
      return turns.length
    },
    isEmpty: () => waiting.first.size + waiting.rotate.size === 0
  }
}
