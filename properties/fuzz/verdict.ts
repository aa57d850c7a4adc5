import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issues } from '../../lib/error.js'
import { ShapeError } from '../../lib/shape.js'

/** Ways in which an input can break the promises of the library. */
export const problems = ['crash', 'hang', 'memory', 'error', 'nan', 'leak'] as const
export type Problem = (typeof problems)[number]

/** Outcome of one input; `detail` explains a finding or a refusal. */
export interface Verdict {
  readonly outcome: 'accepted' | 'refused' | Problem
  readonly detail: string
}

export const isFinding = ({ outcome }: Verdict): boolean => problems.some((problem) => problem === outcome)

/** A broken promise that raised no error: a silent NaN, or a tensor that stays behind. */
export class Finding extends Error {
  override readonly name = 'Finding'
  constructor(
    readonly problem: Problem,
    message: string
  ) {
    super(message)
  }
}

/** Messages of RangeErrors that JavaScript itself throws: an index or a size that no check of the library refused. */
const engineMessages =
  /^(Invalid (array|string|typed array|array buffer|count|date)|Maximum call stack|Array buffer allocation|offset is out|Offset|Start offset|Source is too large|toFixed|toString|precision|The value of)/i

/** Whether an error belongs to the documented classes: `InternVLError` (with `InputError`), `ShapeError`, and a `RangeError` of the library. */
export const isDocumented = (error: unknown): boolean => {
  if (error instanceof InternVLError) return error.issues.length > 0 && error.issues.every(({ message }) => message !== '')
  if (error instanceof ShapeError) return true
  const isRangeError = error instanceof RangeError && error.name === 'RangeError' && !('code' in error)
  return isRangeError && error.message !== '' && !engineMessages.test(error.message)
}

/** A leaked message of JavaScript inside a documented error: its text names a property of undefined, or an object without a text. */
const leakedMessages =
  /Cannot read propert|\w\.\w+ is not a function|undefined is not|is not defined|\[object Object\]|Maximum call stack/

/** The verdict on an error. */
export const verdictOf = (error: unknown): Verdict => {
  if (error instanceof Finding) return { outcome: error.problem, detail: error.message }
  const text = error instanceof Error ? `${error.name}: ${error.message}` : `thrown: ${String(error)}`
  if (isDocumented(error) && !leakedMessages.test(text)) return { outcome: 'refused', detail: text.slice(0, 300) }
  const frames = error instanceof Error ? (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line)) : []
  return { outcome: 'error', detail: [text.slice(0, 600), ...frames.slice(0, 6)].join('\n') }
}

/** The value of `call`; undefined where the call is refused by a documented error. Other errors are thrown. */
export const attempt = async <A>(call: () => A | Promise<A>): Promise<A | undefined> => {
  try {
    return await call()
  } catch (error) {
    if (verdictOf(error).outcome === 'refused') return undefined
    throw error
  }
}

/** The value of a task. Throws an `InternVLError` with its issues. */
export const settle = async <A>(task: TaskEither<Issues, A>): Promise<A> => {
  const result = await task()
  if (E.isLeft(result)) throw new InternVLError(result.left)
  return result.right
}

/** Throws a finding where a number is NaN. */
export const refuseNaN = (name: string, values: ArrayLike<number> | Iterable<number>): void => {
  let i = 0
  for (const value of Symbol.iterator in values ? values : Array.from(values)) {
    if (Number.isNaN(value)) throw new Finding('nan', `${name}: value ${i} is NaN, and no error was raised`)
    i++
  }
}
