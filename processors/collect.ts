import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type * as t from 'io-ts'
import { type Issue, type Issues, issue, whenValid } from '../lib/error.js'

/** Every value, or the errors of all of them. */
export const collect = <A>(results: readonly E.Either<Issues, A>[]): E.Either<Issues, readonly A[]> =>
  whenValid(
    results.flatMap((r) => (E.isLeft(r) ? r.left : [])),
    () => results.flatMap((r) => (E.isRight(r) ? [r.right] : []))
  )

const AT_ONCE = 8

/** Eight tasks at a time; every value, or the errors of all of them. */
export const collectTasks =
  <A>(tasks: readonly TaskEither<Issues, A>[]): TaskEither<Issues, readonly A[]> =>
  async () => {
    const results: E.Either<Issues, A>[] = []
    const queue = tasks.entries()
    const worker = async (): Promise<void> => {
      for (const [i, task] of queue) results[i] = await task()
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    return collect(results)
  }

/** One error as the left side. */
export const invalid = (tag: string, message: string, fields: Readonly<Record<string, unknown>> = {}): E.Either<Issues, never> =>
  E.left([issue(tag, message, fields)])

const describe = (value: unknown): string =>
  value === undefined ? 'nothing' : (JSON.stringify(value)?.slice(0, 60) ?? typeof value)

const tagOf = (type: object): string => ('_tag' in type ? String(type._tag) : '')

/** The steps down to what is wrong; a union is one step, for which of its members was meant cannot be known. */
const stepsTo = ({ context }: t.ValidationError): t.Context => {
  const union = context.findIndex(({ type }) => tagOf(type) === 'UnionType')
  return union < 0 ? context : context.slice(0, union + 1)
}

/** The keys on the way; an intersection's members are no keys. */
const pathOf = (steps: t.Context): string =>
  steps
    .filter(({ key }, i) => key !== '' && tagOf(steps[i - 1]?.type ?? {}) !== 'IntersectionType')
    .map(({ key }) => key)
    .join('.')

/** Reads `value` by `codec`; each error names the source, the path in it, what was expected and what stands there. */
export const decode = <A>(codec: t.Type<A, unknown, unknown>, value: unknown, source: string): E.Either<Issues, A> => {
  const result = codec.decode(value)
  if (E.isRight(result)) return result
  const issues = new Map<string, Issue>()
  for (const error of result.left) {
    const steps = stepsTo(error)
    const path = pathOf(steps)
    const { type, actual } = steps.at(-1)!
    const expected = type.name
    const message = `${source}${path ? `: ${path}` : ''}: expected ${expected}, got ${describe(actual)}.`
    if (!issues.has(path)) issues.set(path, issue('Decode', message, { source, path, expected, actual }))
  }
  const [first, ...rest] = issues.values()
  return E.left([first!, ...rest])
}
