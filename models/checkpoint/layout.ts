import * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { type Described, fuse, type Heads, type Part, type Planned, unfuse, whole } from './fuse.js'
import { fillIn, isBuffer, type KeyRule, keyMaps, type Layout, marks, match, type Side, sideOf } from './keys.js'
import { unpackExperts } from './split-experts.js'

export type { Described, Heads, Planned } from './fuse.js'
export type { Layout } from './keys.js'
export { readPlanned } from './read-planned.js'

/** Rules whose given side a key has, each with what its wildcards stand for and which of the rule's keys it is. */
export const rulesFor = (layout: Layout, side: Side, key: string) =>
  keyMaps[layout].flatMap((rule: KeyRule) =>
    sideOf(rule, side).flatMap((template, part) => {
      const found = match(template, key)
      return found ? [{ rule, found, part }] : []
    })
  )

/** Keys of each kind, by the marks of the layouts; kinds without any are left out. */
const kindsOf = (keys: readonly string[]): ReadonlyMap<string, readonly string[]> =>
  new Map(
    Object.entries(marks)
      .map(([kind, mark]) => [kind, keys.filter((key) => mark.test(key))] as const)
      .filter(([, found]) => found.length > 0)
  )

const layoutOf = (kinds: ReadonlyMap<string, unknown>): Layout | undefined => {
  const are = (...expected: readonly string[]) => [...kinds.keys()].every((kind) => expected.includes(kind))
  if (kinds.has('hf') && are('hf')) return 'hf'
  if (kinds.has('hf-first') && are('hf-first', 'decoder')) return 'hf-first'
  if (!kinds.has('original')) return undefined
  return are('original', 'decoder') ? 'original' : are('original', 'original-internlm2') ? 'original-internlm2' : undefined
}

/** The tower or the decoder is not there, and other keys are that no rule knows. */
const isHalf = (layout: Layout, keys: readonly string[], unknown: readonly string[]): boolean => {
  const has = (part: string) =>
    keys.some((key) => rulesFor(layout, 'file', key).some(({ rule }) => sideOf(rule, 'tree')[0]!.startsWith(part)))
  return unknown.length > 0 && !(has('model.vision_tower.') && has('model.language_model.'))
}

/**
 * Which layout the keys of a checkpoint are in. Errors: `AmbiguousLayout` (keys of several), `UnknownLayout` (of none, or
 * half of one beside keys that are unknown); both list the first keys of each kind.
 */
export const recogniseLayout = (keys: Iterable<string>): E.Either<Issues, Layout> => {
  const all = [...keys].filter((key) => !isBuffer(key))
  const kinds = kindsOf(all)
  const layout = layoutOf(kinds)
  const unknown = all.filter(
    (key) => !Object.values(marks).some((mark) => mark.test(key)) && !(layout && rulesFor(layout, 'file', key).length)
  )
  if (layout && !isHalf(layout, all, unknown)) return E.right(layout)
  const firstKeys = new Map([...kinds, ['unknown', unknown] as const].map(([kind, found]) => [kind, found.slice(0, 3)]))
  const listed = [...firstKeys].flatMap(([kind, found]) => (found.length ? [`${kind}: ${found.join(', ')}`] : [])).join('; ')
  const fields = { firstKeys: Object.fromEntries(firstKeys) }
  if (!layout && kinds.size > 1) return E.left([issue('AmbiguousLayout', `the keys are of several layouts (${listed})`, fields)])
  return E.left([
    issue('UnknownLayout', `the keys are of no known layout, or of half of one (${listed || 'there are none'})`, fields)
  ])
}

const gather = (results: ReadonlyArray<E.Either<Issue, readonly Planned[]>>): E.Either<Issues, readonly Planned[]> =>
  whenValid(
    results.flatMap((result) => (E.isLeft(result) ? [result.left] : [])),
    () => results.flatMap((result) => (E.isRight(result) ? result.right : []))
  )

const toTree = (layout: Layout, source: Described, heads: Heads): E.Either<Issue, readonly Planned[]> => {
  const [hit] = rulesFor(layout, 'file', source.key)
  if (!hit) return E.right([whole(source, source.key)])
  if (hit.rule.fused) return unfuse(source, hit.rule, hit.found, heads)
  return E.right([whole(source, fillIn(sideOf(hit.rule, 'tree')[0]!, hit.found))])
}

/**
 * The tensors of a file as those of the module tree: renamed, fused ones and stacked experts taken apart, packed experts made
 * numbers. Known buffers are left out; a key that no rule knows keeps its name, for the comparison with the declared tree to
 * report. Errors: `FusedShape`, all of them.
 */
export const planTree = (layout: Layout, stored: Iterable<Described>, heads: Heads): E.Either<Issues, readonly Planned[]> => {
  const parameters = [...stored].filter(({ key }) => !isBuffer(key))
  const planned = gather(parameters.map((source) => toTree(layout, source, heads)))
  return E.map((tensors: readonly Planned[]) => unpackExperts(tensors, heads.modelType))(planned)
}

/**
 * The tensors of a module tree as a layout stores them; undoes `planTree`.
 * Errors, all of them: `KeyUnmapped` (the layout has no name for it), `FusedShape`, `FusedIncomplete`.
 */
export const planFile = (layout: Layout, tree: Iterable<Described>, heads: Heads): E.Either<Issues, readonly Planned[]> => {
  const byKey = new Map([...tree].map((source) => [source.key, source]))
  return gather(
    [...byKey.values()].flatMap((source): ReadonlyArray<E.Either<Issue, readonly Planned[]>> => {
      const [hit] = rulesFor(layout, 'tree', source.key)
      if (!hit)
        return [E.left(issue('KeyUnmapped', `${source.key}: the ${layout} layout has no place for it`, { key: source.key }))]
      const key = fillIn(hit.rule.file, hit.found)
      if (!hit.rule.fused) return [E.right([whole(source, key)])]
      const keys = sideOf(hit.rule, 'tree').map((template) => fillIn(template, hit.found))
      const sources = keys.flatMap((part) => byKey.get(part) ?? [])
      if (sources[0]?.key !== source.key) return [] // made where the first of its tensors stands
      if (sources.length < keys.length) {
        const missing = keys.filter((part) => !byKey.has(part))
        return [E.left(issue('FusedIncomplete', `${key}: ${missing.join(', ')} missing of what it fuses`, { key, missing }))]
      }
      return [E.map((planned: Planned) => [planned])(fuse(sources, hit.rule, key, heads))]
    })
  )
}

/** Bytes `[from, to)` of what `parts` make together. */
const within = (parts: readonly Part[], from: number, to: number): readonly Part[] => {
  let at = 0
  return parts.flatMap(({ source, begin, end }) => {
    const start = at
    at += end - begin
    const [first, last] = [Math.max(from, start), Math.min(to, at)]
    return first < last ? [{ source, begin: begin + first - start, end: begin + last - start }] : []
  })
}

/** Two plans as one: the tensors of `second`, whose sources are the tensors of `first`, of the sources of `first`. */
export const composePlans = (first: readonly Planned[], second: readonly Planned[]): readonly Planned[] => {
  const made = new Map(first.map((tensor) => [tensor.key, tensor]))
  return second.map((tensor) => {
    const packed = made.get(tensor.parts[0]?.source ?? '')
    if (packed?.mxfp4) return { ...packed, key: tensor.key } // never fused with others
    return { ...tensor, parts: tensor.parts.flatMap(({ source, begin, end }) => within(made.get(source)!.parts, begin, end)) }
  })
}
