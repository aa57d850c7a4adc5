import fc from 'fast-check'
import { numbers, shortTexts, values } from './awkward.js'

type Path = readonly (string | number)[]

/** A change of a JSON document, or of its text after all changes of the document. `at` is taken modulo the length of the text. */
export type JsonEdit =
  | { readonly op: 'set'; readonly path: Path; readonly value: unknown }
  | { readonly op: 'delete'; readonly path: Path }
  | { readonly op: 'nest'; readonly path: Path; readonly depth: number }
  | { readonly op: 'cut'; readonly at: number }
  | { readonly op: 'insert'; readonly at: number; readonly text: string }

/** A change of the bytes of a file. `at` is taken modulo the length of the file. */
export type ByteEdit =
  | { readonly op: 'write'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly op: 'insert'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly op: 'remove'; readonly at: number; readonly length: number }
  | { readonly op: 'zero'; readonly at: number; readonly length: number }
  | { readonly op: 'cut'; readonly at: number }

/** Paths of all values inside a JSON document. */
export const pathsOf = (json: unknown, path: Path = []): readonly Path[] => {
  const inner = typeof json === 'object' && json !== null ? Object.entries(json) : []
  const key = (name: string) => (Array.isArray(json) ? Number(name) : name)
  return [...(path.length > 0 ? [path] : []), ...inner.flatMap(([name, value]) => pathsOf(value, [...path, key(name)]))]
}

/**
 * Edits of a document: a value set, deleted or nested, a new key, the text cut or extended. `extra` are paths that the document lacks, with
 * values that a published file has there.
 */
export const jsonEdits = (
  document: unknown,
  { extra = [], most = 3 }: { readonly extra?: readonly (readonly [path: Path, value: unknown])[]; readonly most?: number } = {}
): fc.Arbitrary<readonly JsonEdit[]> => {
  const path = fc.constantFrom(...pathsOf(document))
  const set = (op: 'set') => (where: fc.Arbitrary<Path>, value: fc.Arbitrary<unknown>): fc.Arbitrary<JsonEdit> => fc.record({ op: fc.constant(op), path: where, value }) // biome-ignore format: one line
  const replaced = set('set')(path, fc.oneof({ weight: 2, arbitrary: numbers }, values))
  const added = set('set')(
    fc.tuple(path, fc.oneof(shortTexts, fc.constant('__proto__'))).map(([p, key]) => [...p.slice(0, -1), key]),
    values
  )
  const known = extra.map(([p, value]) => set('set')(fc.constant(p), fc.oneof(fc.constant(value), values)))
  const nested = (where: fc.Arbitrary<Path>): fc.Arbitrary<JsonEdit> => fc.record({ op: fc.constant('nest' as const), path: where, depth: fc.constantFrom(10, 1000, 30_000) }) // biome-ignore format: one line
  const rest: fc.Arbitrary<JsonEdit> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ op: fc.constant('delete' as const), path }) },
    { weight: 1, arbitrary: nested(path) },
    ...(extra.length > 0 ? [{ weight: 1, arbitrary: nested(fc.constantFrom(...extra.map(([p]) => p))) }] : []),
    { weight: 1, arbitrary: fc.record({ op: fc.constant('cut' as const), at: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constant('insert' as const), at: fc.nat(), text: shortTexts }) }
  )
  const all = [
    { weight: 8, arbitrary: replaced },
    { weight: 2, arbitrary: added },
    { weight: 4, arbitrary: rest }
  ]
  const more = known.length > 0 ? [{ weight: 6, arbitrary: fc.oneof(...known) }] : []
  return fc.array(fc.oneof(...all, ...more), { minLength: 1, maxLength: most })
}

const headers = fc.oneof(fc.nat(64), fc.nat(1024), fc.nat(2 ** 24))
const fewBytes = fc.uint8Array({ minLength: 1, maxLength: 8 })

/** Edits of the bytes of a file, most of them near its beginning, where formats have their headers. */
export const byteEdits = (most = 4): fc.Arbitrary<readonly ByteEdit[]> =>
  fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.record({ op: fc.constant('write' as const), at: headers, bytes: fewBytes }) },
      { weight: 1, arbitrary: fc.record({ op: fc.constant('insert' as const), at: headers, bytes: fewBytes }) },
      { weight: 1, arbitrary: fc.record({ op: fc.constant('remove' as const), at: headers, length: fc.nat(64) }) },
      { weight: 1, arbitrary: fc.record({ op: fc.constant('zero' as const), at: headers, length: fc.nat(512) }) },
      { weight: 1, arbitrary: fc.record({ op: fc.constant('cut' as const), at: headers }) }
    ),
    { maxLength: most }
  )

/** The document with `value` at a path, or without the path where `value` is `undefined`; unchanged where the parent is missing. */
const withValue = (json: unknown, [key, ...rest]: Path, value: unknown): unknown => {
  if (key === undefined) return value
  if (Array.isArray(json)) {
    const list = [...json]
    if (rest.length === 0 && value === undefined) list.splice(Number(key), 1)
    else if (Number(key) <= list.length) list[Number(key)] = withValue(list[Number(key)], rest, value)
    return list
  }
  if (typeof json !== 'object' || json === null) return json
  const entries = Object.entries(json)
  const isThere = entries.some(([name]) => name === String(key))
  const changed = entries.flatMap(([name, inner]) => {
    if (name !== String(key)) return [[name, inner] as const]
    const next = withValue(inner, rest, value)
    return next === undefined ? [] : [[name, next] as const]
  })
  return Object.fromEntries(isThere || rest.length > 0 || value === undefined ? changed : [...changed, [String(key), value]])
}

const unquoted = '\u{f0000}' // marks strings that are written without quotes

/** JSON text as Python writes it: NaN and Infinity are bare words. */
const toText = (json: unknown): string =>
  JSON.stringify(json, (_, value) => (typeof value === 'number' && !Number.isFinite(value) ? unquoted + value : value))
    .replace(new RegExp(`"${unquoted}(-?\\w+)"`, 'gu'), '$1')
    .replace(new RegExp(`"${unquoted}nest (\\d+)"`, 'gu'), (_, depth) => '['.repeat(Number(depth)) + ']'.repeat(Number(depth)))

/** The text of a JSON document after edits. */
export const editJson = (text: string, edits: readonly JsonEdit[]): string => {
  const document = edits.reduce((json: unknown, edit) => {
    if (edit.op === 'set') return withValue(json, edit.path, edit.value)
    if (edit.op === 'delete') return withValue(json, edit.path, undefined)
    return edit.op === 'nest' ? withValue(json, edit.path, `${unquoted}nest ${edit.depth}`) : json
  }, JSON.parse(text))
  return edits.reduce((result, edit) => {
    if (edit.op === 'cut') return result.slice(0, edit.at % result.length)
    if (edit.op !== 'insert') return result
    const at = edit.at % (result.length + 1)
    return result.slice(0, at) + edit.text + result.slice(at)
  }, toText(document))
}

const joined = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))

/** The bytes of a file after edits. */
export const editBytes = (bytes: Uint8Array, edits: readonly ByteEdit[]): Uint8Array =>
  edits.reduce((file: Uint8Array, edit) => {
    const at = edit.at % Math.max(1, file.length)
    if (edit.op === 'cut') return file.slice(0, at)
    if (edit.op === 'insert') return joined(file.subarray(0, at), edit.bytes, file.subarray(at))
    if (edit.op === 'remove') return joined(file.subarray(0, at), file.subarray(at + edit.length))
    const by = edit.op === 'write' ? edit.bytes : new Uint8Array(edit.length)
    const changed = file.slice()
    changed.set(by.subarray(0, file.length - at), at)
    return changed
  }, bytes)
