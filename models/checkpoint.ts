import * as E from 'fp-ts/lib/Either.js'
import { dtypeBytes, type StoredDtype } from '../lib/dtype.js'
import { type Fault, type Faults, fault, unless } from '../lib/fault.js'
import { sizeOf } from '../lib/shape.js'
import { isBuffer, type KeyRule, keyMaps, type Layout, marks } from './checkpoint-keys.js'
import type { TextConfig } from './config-types.js'

export type { Layout } from './checkpoint-keys.js'

/** A tensor by name, without its data: a `TensorEntry`, or a leaf of a tree. */
export interface Described {
  readonly key: string
  readonly dtype: StoredDtype
  readonly shape: readonly number[]
}

/** A tensor to be made of bytes `[begin, end)` of others, one after another. */
export interface Planned extends Described {
  readonly parts: ReadonlyArray<{ readonly source: string; readonly begin: number; readonly end: number }>
}

/** The head counts that say how grouped projections are fused. */
export type Heads = Pick<TextConfig, 'numAttentionHeads' | 'numKeyValueHeads' | 'headDim'>

type Rows = readonly [from: number, to: number]

/** Rows of a fused tensor that each of its tensors has, in order; undefined when it cannot be so fused. */
type Split = (rows: number, heads: Heads) => ReadonlyArray<readonly Rows[]> | undefined

const thirds: Split = (rows) => (rows % 3 ? undefined : [0, 1, 2].map((i) => [[(i * rows) / 3, ((i + 1) * rows) / 3]]))

/** For each key-value head its query heads, then its key, then its value. Source: InternLM2's `wqkv`. */
const groups: Split = (rows, { numAttentionHeads: H, numKeyValueHeads: G, headDim: K }) => {
  const [queries, size] = [(H / G) * K, (H / G + 2) * K]
  if (rows !== G * size) return undefined
  const all = (from: number, length: number) =>
    Array.from({ length: G }, (_, g): Rows => [g * size + from, g * size + from + length])
  return [all(0, queries), all(queries, K), all(queries + K, K)]
}
const splits = { thirds, groups }

type Side = 'file' | 'tree'
const sideOf = (rule: KeyRule, side: Side): readonly string[] => [rule[side]].flat()

const patterns = new Map<string, RegExp>()
const patternOf = (template: string): RegExp => {
  const made =
    patterns.get(template) ??
    new RegExp(`^${template.replaceAll('.', '\\.').replaceAll(/\*\*?/g, (s) => (s === '*' ? '(\\d+)' : '(.+)'))}$`)
  patterns.set(template, made)
  return made
}

/** What `*` and `**` stand for in a key, or null when it is of another form. */
const match = (template: string, key: string): readonly string[] | null => patternOf(template).exec(key)?.slice(1) ?? null

const fillIn = (template: string, found: readonly string[]): string => {
  let i = 0
  return template.replaceAll(/\*\*?/g, () => found[i++]!)
}

/** Rules whose given side a key has, each with what its wildcards stand for and which of the rule's keys it is. */
export const rulesFor = (layout: Layout, side: Side, key: string) =>
  keyMaps[layout].flatMap((rule: KeyRule) =>
    sideOf(rule, side).flatMap((template, part) => {
      const found = match(template, key)
      return found ? [{ rule, found, part }] : []
    })
  )

/**
 * Which layout the keys of a checkpoint are in. Faults: `AmbiguousLayout` (keys of several), `UnknownLayout`; both list the first keys of each kind.
 */
export const recogniseLayout = (keys: Iterable<string>): E.Either<Faults, Layout> => {
  const all = [...keys].filter((key) => !isBuffer(key))
  const kinds = Object.entries(marks).map(([kind, mark]) => [kind, all.filter((key) => mark.test(key))] as const)
  const found = new Map(kinds.filter(([, found]) => found.length > 0))
  const listed = [...found].map(([kind, keys]) => `${kind}: ${keys.slice(0, 3).join(', ')}`).join('; ')
  const is = (...expected: string[]) => [...found.keys()].every((kind) => expected.includes(kind))
  if (found.has('hf') && is('hf')) return E.right('hf')
  if (found.has('hf-first') && is('hf-first', 'decoder')) return E.right('hf-first')
  if (found.has('original') && is('original', 'decoder')) return E.right('original')
  if (found.has('original') && is('original', 'original-internlm2')) return E.right('original-internlm2')
  const firstKeys = Object.fromEntries([...found].map(([kind, keys]) => [kind, keys.slice(0, 3)]))
  if (found.size > 1) return E.left([fault('AmbiguousLayout', `the keys are of several layouts (${listed})`, { firstKeys })])
  const message = `the keys are of no known layout, or of half of one (${listed || all.slice(0, 3).join(', ') || 'there are none'})`
  return E.left([fault('UnknownLayout', message, { firstKeys: found.size ? firstKeys : { unknown: all.slice(0, 3) } })])
}

const rowBytes = ({ dtype, shape }: Described): number => dtypeBytes[dtype] * sizeOf(shape.slice(1))
const whole = (source: Described, key: string): Planned => ({
  key,
  dtype: source.dtype,
  shape: source.shape,
  parts: [{ source: source.key, begin: 0, end: dtypeBytes[source.dtype] * sizeOf(source.shape) }]
})

/** A fused tensor of a file into those of the tree. */
const unfuse = (
  source: Described,
  rule: KeyRule,
  found: readonly string[],
  heads: Heads
): E.Either<Fault, readonly Planned[]> => {
  const rows = source.shape[0] ?? 0
  const split = splits[rule.fused!](rows, heads)
  if (!split) {
    const { key, shape } = source
    return E.left(
      fault('FusedShape', `${key}: [${shape.join(', ')}] is no fusion of q, k and v as the configuration has them`, {
        key,
        actual: shape
      })
    )
  }
  const bytes = rowBytes(source)
  return E.right(
    split.map((blocks, i) => ({
      key: fillIn(sideOf(rule, 'tree')[i]!, found),
      dtype: source.dtype,
      shape: [blocks.reduce((n, [from, to]) => n + to - from, 0), ...source.shape.slice(1)],
      parts: blocks.map(([from, to]) => ({ source: source.key, begin: from * bytes, end: to * bytes }))
    }))
  )
}

/** Tensors of the tree into the one that a file fuses them to: the same rows, in the order of the fused tensor. */
const fuse = (sources: readonly Described[], rule: KeyRule, key: string, heads: Heads): E.Either<Fault, Planned> => {
  const [first] = sources as [Described]
  const rows = sources.reduce((n, { shape }) => n + (shape[0] ?? 0), 0)
  const split = splits[rule.fused!](rows, heads)
  const fits = split?.every((blocks, i) => blocks.reduce((n, [from, to]) => n + to - from, 0) === sources[i]?.shape[0])
  const alike = sources.every((s) => s.dtype === first.dtype && `${s.shape.slice(1)}` === `${first.shape.slice(1)}`)
  if (!split || !fits || !alike) {
    const shapes = sources.map((s) => `${s.key} [${s.shape.join(', ')}] ${s.dtype}`).join(', ')
    return E.left(fault('FusedShape', `${key}: cannot be fused of ${shapes}`, { key }))
  }
  const bytes = rowBytes(first)
  const parts = split.flatMap((blocks, i) => {
    let at = 0
    return blocks.map(([from, to]) => {
      const begin = at * bytes
      at += to - from
      return { from, source: sources[i]!.key, begin, end: at * bytes }
    })
  })
  const ordered = parts.sort((a, b) => a.from - b.from).map(({ from: _, ...part }) => part)
  return E.right({ key, dtype: first.dtype, shape: [rows, ...first.shape.slice(1)], parts: ordered })
}

const gather = (results: ReadonlyArray<E.Either<Fault, readonly Planned[]>>): E.Either<Faults, readonly Planned[]> =>
  unless(
    results.flatMap((result) => (E.isLeft(result) ? [result.left] : [])),
    () => results.flatMap((result) => (E.isRight(result) ? result.right : []))
  )

/**
 * The tensors of a file as those of the module tree: renamed, and fused ones taken apart; known buffers are left out, and
 * a key that no rule knows keeps its name, for the comparison with the declared tree to report.
 * Faults: `FusedShape`, all of them.
 */
export const planTree = (layout: Layout, stored: Iterable<Described>, heads: Heads): E.Either<Faults, readonly Planned[]> =>
  gather(
    [...stored].flatMap((source): ReadonlyArray<E.Either<Fault, readonly Planned[]>> => {
      if (isBuffer(source.key)) return []
      const [hit] = rulesFor(layout, 'file', source.key)
      if (!hit) return [E.right([whole(source, source.key)])]
      if (hit.rule.fused) return [unfuse(source, hit.rule, hit.found, heads)]
      return [E.right([whole(source, fillIn(sideOf(hit.rule, 'tree')[0]!, hit.found))])]
    })
  )

/**
 * The tensors of a module tree as a layout stores them; undoes `planTree`.
 * Faults, all of them: `KeyUnmapped` (the layout has no name for it), `FusedShape`, `FusedIncomplete`.
 */
export const planFile = (layout: Layout, tree: Iterable<Described>, heads: Heads): E.Either<Faults, readonly Planned[]> => {
  const byKey = new Map([...tree].map((source) => [source.key, source]))
  return gather(
    [...byKey.values()].flatMap((source): ReadonlyArray<E.Either<Fault, readonly Planned[]>> => {
      const [hit] = rulesFor(layout, 'tree', source.key)
      if (!hit)
        return [E.left(fault('KeyUnmapped', `${source.key}: the ${layout} layout has no place for it`, { key: source.key }))]
      const key = fillIn(hit.rule.file, hit.found)
      if (!hit.rule.fused) return [E.right([whole(source, key)])]
      const keys = sideOf(hit.rule, 'tree').map((template) => fillIn(template, hit.found))
      const sources = keys.flatMap((part) => byKey.get(part) ?? [])
      if (sources[0]?.key !== source.key) return [] // made where the first of its tensors stands
      if (sources.length < keys.length) {
        const missing = keys.filter((part) => !byKey.has(part))
        return [E.left(fault('FusedIncomplete', `${key}: ${missing.join(', ')} missing of what it fuses`, { key, missing }))]
      }
      return [E.map((planned: Planned) => [planned])(fuse(sources, hit.rule, key, heads))]
    })
  )
}

/** The bytes of a planned tensor, in memory of their own, from ranges of its sources. */
export const readPlanned = async (
  { parts }: Planned,
  read: (source: string, begin: number, end: number) => Promise<Uint8Array>
): Promise<Uint8Array> => {
  const [first, ...more] = parts
  if (first && more.length === 0) return read(first.source, first.begin, first.end)
  const bytes = new Uint8Array(parts.reduce((n, { begin, end }) => n + end - begin, 0))
  let at = 0
  for (const { source, begin, end } of parts) {
    bytes.set(await read(source, begin, end), at)
    at += end - begin
  }
  return bytes
}
