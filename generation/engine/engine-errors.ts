import { InternVLError, issue } from '../../lib/error.js'

/** An error of the engine itself, not of a request's input: its `retryable` says whether the same request may succeed later. */
export class EngineError extends InternVLError {
  override readonly name: string = 'EngineError'
  constructor(
    tag: string,
    message: string,
    readonly retryable: boolean
  ) {
    super([issue(tag, message)])
  }
}

/** The queue is full. A server answers 429 with `Retry-After: retryAfterSeconds`. */
export class QueueFullError extends EngineError {
  override readonly name = 'QueueFullError'
  constructor(
    readonly maxQueue: number,
    /** Whole seconds after which a place may be free, estimated from recent requests; at least 1. */
    readonly retryAfterSeconds: number
  ) {
    super('QueueFull', `submit: ${maxQueue} requests wait already; try again in ${retryAfterSeconds} s, or raise maxQueue.`, true)
  }
}

/** The process of the model ended while it had the request. The engine starts it again by itself. */
export class EngineCrashedError extends EngineError {
  override readonly name = 'EngineCrashedError'
  constructor(reason: string) {
    super(
      'EngineCrashed',
      `The process of the model ended (${reason}) before the answer was complete; send the request again.`,
      true
    )
  }
}

/** The process could not be started again; every later request fails. */
export class EngineFailedError extends EngineError {
  override readonly name = 'EngineFailedError'
  constructor(restarts: number, reason: string) {
    super('EngineFailed', `The process of the model failed ${restarts} times in a row (${reason}); create a new engine.`, false)
  }
}

/** `close()` was called. */
export class EngineClosedError extends EngineError {
  override readonly name = 'EngineClosedError'
  constructor() {
    super('EngineClosed', 'The engine is closed; create a new one with createEngine().', false)
  }
}
