import * as E from 'fp-ts/lib/Either.js'
import type { NonEmptyArray } from 'fp-ts/lib/NonEmptyArray.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'

/**
 * Something outside the program is at fault: a file, a configuration, bytes, a message. It is data, tagged, and carries
 * one sentence that names the input and says what to do; further fields (`path`, `key`, `expected`, `actual`) belong to the tag.
 */
export interface Fault {
  readonly _tag: string
  readonly message: string
  readonly [field: string]: unknown
}

/** All that was found wrong, never only the first. */
export type Faults = NonEmptyArray<Fault>

/** One fault. `fault('NotFound', `${path}: no such file`, { path })`. */
export const fault = (tag: string, message: string, fields: Readonly<Record<string, unknown>> = {}): Fault => ({
  ...fields,
  _tag: tag,
  message
})

/** What the promise-based doors of the library throw: every fault found, one sentence a line. */
export class InternVLError extends Error {
  override readonly name = 'InternVLError'
  constructor(readonly faults: Faults) {
    super(faults.map((f) => f.message).join('\n'))
  }
}

/** Runs a task; its value, or an `InternVLError` with all its faults. */
export const orThrow = async <A>(task: TaskEither<Faults, A>): Promise<A> => getOrThrow(await task())

/** The right side, or an `InternVLError` with all faults of the left. */
export const getOrThrow = <A>(result: E.Either<Faults, A>): A => {
  if (E.isLeft(result)) throw new InternVLError(result.left)
  return result.right
}

/** Right when there are no faults; else all of them. */
export const unless = <A>(faults: readonly Fault[], value: () => A): E.Either<Faults, A> => {
  const [first, ...rest] = faults
  return first ? E.left([first, ...rest]) : E.right(value())
}
