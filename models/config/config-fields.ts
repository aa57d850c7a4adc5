import { type Issue, issue, valueText } from '../../lib/error.js'
import type { Activation } from '../../lib/nn/activation.js'
import type { Pair } from './config-types.js'
import { type Bounds, outOfBounds } from './number-bounds.js'

/** A type that a field of a configuration may have: a type guard, and its description for error messages. */
export interface Kind<A> {
  readonly expected: string
  readonly is: (value: unknown) => value is A
}

const kind = <A>(expected: string, is: (value: unknown) => boolean): Kind<A> => ({ expected, is: is as Kind<A>['is'] })
const isInteger = (value: unknown): value is number => Number.isSafeInteger(value)
const isCount = (value: unknown): value is number => isInteger(value) && value > 0

export type Json = Readonly<Record<string, unknown>>
export const isJson = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

export const count = kind<number>('a positive integer', isCount)
export const index = kind<number>('an integer, 0 or more', (v) => isInteger(v) && v >= 0)
export const integer = kind<number>('an integer', isInteger)
export const number = kind<number>('a number', Number.isFinite)
export const positive = kind<number>('a positive number', (v) => Number.isFinite(v) && (v as number) > 0)
export const flag = kind<boolean>('true or false', (v) => typeof v === 'boolean')
export const text = kind<string>('a string', (v) => typeof v === 'string')
export const record = kind<Json>('an object', isJson)
export const oneOf = <A extends string>(names: readonly A[]) =>
  kind<A>(`one of ${names.join(', ')}`, (v) => names.includes(v as A))
export const listOf = <A>({ expected, is }: Kind<A>) =>
  kind<readonly A[]>(`a list, each ${expected}`, (v) => Array.isArray(v) && v.every(is))
export const either = <A, B>(a: Kind<A>, b: Kind<B>) => kind<A | B>(`${a.expected}, or ${b.expected}`, (v) => a.is(v) || b.is(v))
export const orNull = <A>({ expected, is }: Kind<A>) => kind<A | null>(`${expected}, or null`, (v) => v === null || is(v))

/** Activation functions of `hidden_act` that the library computes. */
export const activation = oneOf(
  Object.keys({ gelu: 0, gelu_new: 0, gelu_pytorch_tanh: 0, quick_gelu: 0, silu: 0, swish: 0, relu: 0 } satisfies Record<
    Activation,
    0
  >) as Activation[]
)

/** An image size in pixels: one number for a square, or `[height, width]`. */
export const sides = kind<number | Pair>('a positive integer or a pair of them', (v) =>
  Array.isArray(v) ? v.length === 2 && v.every(isCount) : isCount(v)
)
export const toPair = (v: number | Pair): Pair => (typeof v === 'number' ? [v, v] : v)

/**
 * Typed access to a JSON object of a configuration. `f('a|b', kind, fallback)` is the value of the first key that is present, and
 * `fallback` where none is. A value of another kind or out of bounds adds an error, and reading goes on with the fallback, so that
 * one pass finds all errors.
 */
export interface Fields {
  <A>(keys: string, kind: Kind<A>, fallback: A): A
  /** The value of the first present key; null and absent are `undefined`. */
  readonly maybe: <A>(keys: string, kind: Kind<A>) => A | undefined
  /** The first of the keys that is present. */
  readonly has: (keys: string) => string | undefined
  /** The fields of a nested object; where null or absent, those of `fallback`, which is empty by default. */
  readonly inside: (keys: string, fallback?: Json) => Fields
  readonly isEmpty: boolean
  /** Adds the error that a field is not as `expected` says, for conditions that a kind cannot check. */
  readonly note: (key: string, expected: string) => void
}

const shown = (value: unknown): string => (value === undefined ? 'nothing' : valueText(value))

/** Typed access to `source`. Errors are added to `issues`, with `file` and the dotted path of the field. */
export const fieldsOf = (source: Json, file: string, issues: Issue[], path = '', bounds: Bounds = {}): Fields => {
  const has = (keys: string) => keys.split('|').find((key) => Object.hasOwn(source, key))
  const note = (key: string, expected: string) => {
    const [fieldPath, actual] = [path + key, source[key]]
    if (issues.some((known) => known.path === fieldPath)) return // a field may be read twice
    const message = `${file}: ${fieldPath} should be ${expected}; it is ${shown(actual)}`
    issues.push(issue('ConfigField', message, { file, path: fieldPath, expected, actual }))
  }
  const get = <A>(keys: string, { expected, is }: Kind<A>, fallback: A): A => {
    const key = has(keys)
    if (key === undefined) return fallback
    const value = source[key]
    const bound = Object.hasOwn(bounds, key) ? outOfBounds(bounds[key]!, value) : undefined
    if (is(value) && bound === undefined) return value
    note(key, is(value) ? `${expected}, ${bound}` : expected)
    return fallback
  }
  const maybe = <A>(keys: string, of: Kind<A>) => get(keys, orNull(of), null) ?? undefined
  const inside = (keys: string, fallback: Json = {}) => {
    const key = has(keys) ?? keys.split('|')[0]!
    return fieldsOf(maybe(key, record) ?? fallback, file, issues, `${path}${key}.`, bounds)
  }
  return Object.assign(get, { maybe, has, inside, note, isEmpty: Object.keys(source).length === 0 })
}
