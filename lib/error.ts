import * as E from 'fp-ts/lib/Either.js'
import * as NEA from 'fp-ts/lib/NonEmptyArray.js'
import * as RA from 'fp-ts/lib/ReadonlyArray.js'
import * as T from 'fp-ts/lib/Task.js'
import * as TE from 'fp-ts/lib/TaskEither.js'

/**
 * A validation error as data: a file, a configuration, bytes or a message from outside the program is wrong. `_tag` names the kind,
 * `message` is one sentence that names the input and says what to do; further fields (`path`, `key`, `expected`, `actual`) depend on the tag.
 */
export interface Issue {
  readonly _tag: string
  readonly message: string
  readonly [field: string]: unknown
}

/** The list of all errors that a validation found, never only the first. */
export type Issues = NEA.NonEmptyArray<Issue>

/** Builds one validation error: `issue('NotFound', `${path}: no such file`, { path })`. */
export const issue = (tag: string, message: string, fields: Readonly<Record<string, unknown>> = {}): Issue => ({
  ...fields,
  _tag: tag,
  message
})

/** The error that promise-based functions of the library throw: all issues, one sentence a line. */
export class InternVLError extends Error {
  override readonly name: string = 'InternVLError'
  constructor(readonly issues: Issues) {
    super(issues.map(({ message }) => message).join('\n'))
  }

  /** @deprecated The name of `issues` before 0.2. */
  get faults(): Issues {
    return this.issues
  }
}

/**
 * The error for refused input: the messages, images, videos or options of one request are invalid or exceed a limit. A server answers
 * it with a client error; every other error is one of the checkpoint, the machine or the program.
 */
export class InputError extends InternVLError {
  override readonly name = 'InputError'
}

/**
 * Whether an error is one of the library's, whose message is for the user: a command prints it without a stack trace. Other errors are
 * errors of the program.
 */
export const isExpectedError = (error: unknown): error is Error =>
  error instanceof InternVLError || error instanceof RangeError || (error instanceof Error && error.name === 'ShapeError')

/** Marks issues as errors of a request's input: `orThrow` and `getOrThrow` then throw an `InputError`. */
export const inputIssues = (issues: Issues): Issues => NEA.map((problem: Issue) => ({ ...problem, isInput: true }))(issues)

/**
 * The issues without repetitions of a message: several readers of a folder may report the same missing file. A map by message, because a
 * damaged folder may have ten thousand issues, and comparing all pairs would take seconds.
 */
export const distinctIssues = (issues: Issues): Issues => {
  const byMessage = new Map<string, Issue>()
  for (const one of issues) if (!byMessage.has(one.message)) byMessage.set(one.message, one)
  const [first = issues[0], ...others] = byMessage.values()
  return [first, ...others]
}

/** Runs a task and returns its value. Throws an `InternVLError` with all its issues. */
export const orThrow = async <A>(task: TE.TaskEither<Issues, A>): Promise<A> => getOrThrow(await task())

/** The right value. Throws an `InternVLError` with all issues of the left. */
export const getOrThrow = <A>(result: E.Either<Issues, A>): A => {
  if (E.isLeft(result)) {
    const isRefusal = result.left.every(({ isInput }) => isInput === true)
    throw isRefusal ? new InputError(result.left) : new InternVLError(result.left)
  }
  return result.right
}

/** Message of a caught error, for the message of an issue. An exhausted stack is named by its cause. */
export const errorText = (error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error)
  return error instanceof RangeError && message.startsWith('Maximum call stack') ? 'it is nested too deeply' : message
}

/**
 * A value for the message of an error: a number as it is, else at most 60 characters of the JSON text; the type of a value without JSON
 * text, such as one that is nested too deeply.
 */
export const valueText = (value: unknown): string => {
  if (typeof value === 'number') return String(value) // JSON cannot represent NaN
  try {
    const text = JSON.stringify(value) ?? typeof value
    return text.length > 60 ? `${text.slice(0, 57)}...` : text
  } catch {
    return typeof value
  }
}

/** A text as it is, `valueText` of every other value: for a name from a file, since `String` of a list of lists has no bounded depth. */
export const nameText = (value: unknown): string => (typeof value === 'string' ? value : valueText(value))

/** One issue as a left value. */
export const invalid = (tag: string, message: string, fields: Readonly<Record<string, unknown>> = {}): E.Either<Issues, never> =>
  E.left([issue(tag, message, fields)])

/** Applicative of `Either` that gathers the issues of both sides; for `sequenceS`, `sequenceT` and `traverse` of fp-ts. */
export const validation = E.getApplicativeValidation(NEA.getSemigroup<Issue>())

/** Applicative of `TaskEither` that runs tasks in parallel and gathers the issues of all. */
export const taskValidation = TE.getApplicativeTaskValidation(T.ApplyPar, NEA.getSemigroup<Issue>())

/** Every right value in order, or the issues of all left values. */
export const validateAll: <A>(results: readonly E.Either<Issues, A>[]) => E.Either<Issues, readonly A[]> = RA.sequence(validation)

/** Right `value()` where the list of issues is empty, else all of them as the left. */
export const whenValid = <A>(issues: readonly Issue[], value: () => A): E.Either<Issues, A> =>
  RA.isNonEmpty(issues) ? E.left(NEA.fromReadonlyNonEmptyArray(issues)) : E.right(value())

/** Edit distance between two texts in characters: insertions, deletions and replacements. Source: Levenshtein 1966. */
export const editDistance = (a: string, b: string): number => {
  const [x, y] = [Array.from(a), Array.from(b)]
  let row = Array.from({ length: x.length + 1 }, (_, i) => i)
  for (const [j, to] of y.entries()) {
    const next = [j + 1]
    for (const [i, from] of x.entries()) next.push(from === to ? row[i]! : 1 + Math.min(row[i]!, row[i + 1]!, next[i]!))
    row = next
  }
  return row.at(-1)!
}
