import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type * as t from 'io-ts'
import { type Fault, type Faults, fault, unless } from '../lib/fault.js'

/** Every value, or the faults of all of them. */
export const collect = <A>(results: readonly E.Either<Faults, A>[]): E.Either<Faults, readonly A[]> =>
  unless(
    results.flatMap((r) => (E.isLeft(r) ? r.left : [])),
    () => results.flatMap((r) => (E.isRight(r) ? [r.right] : []))
  )

/** All tasks at the same time; every value, or the faults of all of them. */
export const collectTasks =
  <A>(tasks: readonly TaskEither<Faults, A>[]): TaskEither<Faults, readonly A[]> =>
  async () =>
    collect(await Promise.all(tasks.map((task) => task())))

/** One fault as the left side. */
export const leftFault = (
  tag: string,
  message: string,
  fields: Readonly<Record<string, unknown>> = {}
): E.Either<Faults, never> => E.left([fault(tag, message, fields)])

const describe = (value: unknown): string =>
  value === undefined ? 'nothing' : (JSON.stringify(value)?.slice(0, 60) ?? typeof value)

const pathOf = ({ context }: t.ValidationError): string =>
  context
    .map(({ key, type }, i) =>
      i > 0 && ['IntersectionType', 'UnionType'].includes(tagOf(context[i - 1]!.type)) ? '' : keyOf(key, type)
    )
    .filter((key) => key !== '')
    .join('.')

const tagOf = (type: object): string => ('_tag' in type ? String(type._tag) : '')
const keyOf = (key: string, _type: object): string => key

/** Reads `value` by `codec`; each fault names the source, the path in it, what was expected and what stands there. */
export const decode = <A>(codec: t.Type<A, unknown, unknown>, value: unknown, source: string): E.Either<Faults, A> => {
  const result = codec.decode(value)
  if (E.isRight(result)) return result
  const faults = new Map<string, Fault>()
  for (const error of result.left) {
    const path = pathOf(error)
    const expected = error.context.at(-1)!.type.name
    const message = `${source}${path ? `: ${path}` : ''}: expected ${expected}, got ${describe(error.value)}.`
    if (!faults.has(path)) faults.set(path, fault('Decode', message, { source, path, expected, actual: error.value }))
  }
  const [first, ...rest] = faults.values()
  return E.left([first!, ...rest])
}
