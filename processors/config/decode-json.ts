import * as E from 'fp-ts/lib/Either.js'
import type * as t from 'io-ts'
import { type Issue, type Issues, issue, valueText } from '../../lib/error.js'

const describe = (value: unknown): string => (value === undefined ? 'nothing' : valueText(value))

const tagOf = (type: object): string => ('_tag' in type ? String(type._tag) : '')

/** Steps down to the invalid value. A union counts as one step, since its intended member is unknown. */
const stepsTo = ({ context }: t.ValidationError): t.Context => {
  const union = context.findIndex(({ type }) => tagOf(type) === 'UnionType')
  return union < 0 ? context : context.slice(0, union + 1)
}

/** Keys along the steps; io-ts lists the members of an intersection as steps too, which are not keys. */
const pathOf = (steps: t.Context): string =>
  steps
    .filter(({ key }, i) => key !== '' && tagOf(steps[i - 1]?.type ?? {}) !== 'IntersectionType')
    .map(({ key }) => key)
    .join('.')

/** Decodes `value` by an io-ts codec. Each error names the source, the path in it, the expected type and the actual value. */
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
