import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { type Issues, invalid, validateAll } from '../../lib/error.js'
import { findDecoder } from '../decoders/index.js'
import { families, isWithin, keyGroupsOf, layoutNames } from '../families.js'
import { type Described, fuse, type Heads, type Part, type Planned, renamed, unfuse } from './fuse.js'
import { fillIn, isBuffer, type KeyGroup, type KeyRule, type KeySide, keysOf, type Layout, match } from './keys.js'

export type { Described, Heads, Planned } from './fuse.js'
export type { Layout } from './keys.js'
export { readPlanned } from './read-planned.js'

/** The rules that a key matches on the given side, each with the values of its wildcards and the index of the key. */
const matchingRules = (rules: readonly KeyRule[], side: KeySide, key: string) =>
  rules.flatMap((rule) =>
    keysOf(rule, side).flatMap((template, part) => {
      const values = match(template, key)
      return values ? [{ rule, values, part }] : []
    })
  )

/** The rules of a layout that a key matches on the given side. */
export const rulesFor = (layout: Layout, side: KeySide, key: string) =>
  keyGroupsOf(layout).flatMap(({ rules }) => matchingRules(rules, side, key))

/** Every key group once, by name. */
const groups: ReadonlyMap<string, KeyGroup> = new Map(
  layoutNames.flatMap((layout) => keyGroupsOf(layout).map((group) => [group.name, group] as const))
)

const identifies = ({ recognizedBy }: KeyGroup, key: string): boolean => recognizedBy.some((template) => match(template, key))

/** The keys that identify a group, by the name of the group; groups without any are left out. */
const keysByGroup = (keys: readonly string[]): ReadonlyMap<string, readonly string[]> =>
  new Map(
    [...groups]
      .map(([name, group]) => [name, keys.filter((key) => identifies(group, key))] as const)
      .filter(([, found]) => found.length > 0)
  )

const layoutOf = (present: ReadonlyMap<string, unknown>): Layout | undefined =>
  layoutNames.find((layout) => {
    const names = keyGroupsOf(layout).map(({ name }) => name)
    return present.has(names[0]!) && [...present.keys()].every((name) => names.includes(name))
  })

/** Whether the vision tower or the decoder is missing while other keys match no rule. */
const isIncomplete = (layout: Layout, keys: readonly string[], unknown: readonly string[]): boolean => {
  if (unknown.length === 0) return false
  const paths = keys.flatMap((key) => rulesFor(layout, 'file', key).map(({ rule }) => keysOf(rule, 'tree')[0]!))
  return !families.some(({ parts }) => [parts.vision, parts.decoder].every((part) => paths.some((path) => isWithin(part, path))))
}

/**
 * The layout that the keys of a checkpoint are in. Errors: `AmbiguousLayout` (keys of several), `UnknownLayout` (of none, or
 * an incomplete one with unknown keys beside it); both list the first keys of each group.
 */
export const recognizeLayout = (keys: Iterable<string>): E.Either<Issues, Layout> => {
  const all = [...keys].filter((key) => !isBuffer(key))
  const present = keysByGroup(all)
  const layout = layoutOf(present)
  const recognized = new Set([...present.values()].flat())
  const unknown = all.filter((key) => !recognized.has(key) && !(layout && rulesFor(layout, 'file', key).length))
  if (layout && !isIncomplete(layout, all, unknown)) return E.right(layout)
  const firstKeys = new Map([...present, ['unknown', unknown] as const].map(([name, found]) => [name, found.slice(0, 3)]))
  const listed = [...firstKeys].flatMap(([name, found]) => (found.length ? [`${name}: ${found.join(', ')}`] : [])).join('; ')
  const fields = { firstKeys: Object.fromEntries(firstKeys) }
  if (!layout && present.size > 1) return invalid('AmbiguousLayout', `the keys are of several layouts (${listed})`, fields)
  const message = `the keys are of no known layout, or of an incomplete one (${listed || 'there are none'})`
  return invalid('UnknownLayout', message, fields)
}

const flatten = E.map((groups: readonly (readonly Planned[])[]): readonly Planned[] => groups.flat())

const toTree = (rules: readonly KeyRule[], source: Described, heads: Heads): E.Either<Issues, readonly Planned[]> => {
  const [hit] = matchingRules(rules, 'file', source.key)
  if (!hit) return E.right([renamed(source, source.key)])
  if (hit.rule.fused) return unfuse(source, hit.rule, hit.values, heads)
  return E.right([renamed(source, fillIn(keysOf(hit.rule, 'tree')[0]!, hit.values))])
}

/**
 * The tensors of a file as those of the module tree: renamed, fused and stacked tensors split, MXFP4 experts dequantized. Known
 * buffers are left out; a key that no rule matches keeps its name, for the comparison with the declared tree to report.
 * Errors: `FusedShape`, all of them.
 */
export const planByRules = (
  rules: readonly KeyRule[],
  stored: Iterable<Described>,
  heads: Heads
): E.Either<Issues, readonly Planned[]> => {
  const planExperts = findDecoder(({ configType }) => configType === heads.modelType)?.planExperts
  return pipe(
    validateAll([...stored].filter(({ key }) => !isBuffer(key)).map((source) => toTree(rules, source, heads))),
    flatten,
    E.map((planned) => planExperts?.(planned) ?? planned)
  )
}

/** The tensors of a file in a layout as those of the module tree; see `planByRules`. */
export const planTree = (layout: Layout, stored: Iterable<Described>, heads: Heads): E.Either<Issues, readonly Planned[]> =>
  planByRules(
    keyGroupsOf(layout).flatMap(({ rules }) => rules),
    stored,
    heads
  )

const toFile = (
  layout: Layout,
  source: Described,
  byKey: ReadonlyMap<string, Described>,
  heads: Heads
): E.Either<Issues, readonly Planned[]> => {
  const [hit] = rulesFor(layout, 'tree', source.key)
  if (!hit) return invalid('KeyUnmapped', `${source.key}: the ${layout} layout has no name for it`, { key: source.key })
  const key = fillIn(hit.rule.file, hit.values)
  if (!hit.rule.fused) return E.right([renamed(source, key)])
  const keys = keysOf(hit.rule, 'tree').map((template) => fillIn(template, hit.values))
  const sources = keys.flatMap((part) => byKey.get(part) ?? [])
  if (sources[0]?.key !== source.key) return E.right([]) // the fused tensor stands at the first of its parts
  const missing = keys.filter((part) => !byKey.has(part))
  if (missing.length > 0)
    return invalid('FusedIncomplete', `${key}: ${missing.join(', ')} missing, which it fuses with others`, { key, missing })
  return E.map((planned: Planned) => [planned])(fuse(sources, hit.rule, key, heads))
}

/**
 * The tensors of a module tree as a layout stores them, the inverse of `planTree`.
 * Errors, all of them: `KeyUnmapped` (the layout has no name for a tensor), `FusedShape`, `FusedIncomplete`.
 */
export const planFile = (layout: Layout, tree: Iterable<Described>, heads: Heads): E.Either<Issues, readonly Planned[]> => {
  const byKey = new Map([...tree].map((source) => [source.key, source]))
  return flatten(validateAll([...byKey.values()].map((source) => toFile(layout, source, byKey, heads))))
}

/** The parts that hold bytes `[from, to)` of the concatenation of `parts`. */
const slice = (parts: readonly Part[], from: number, to: number): readonly Part[] => {
  let at = 0
  return parts.flatMap(({ source, begin, end }) => {
    const start = at
    at += end - begin
    const [first, last] = [Math.max(from, start), Math.min(to, at)]
    return first < last ? [{ source, begin: begin + first - start, end: begin + last - start }] : []
  })
}

/** Composes two plans: `second`, whose sources are the tensors of `first`, as a plan of the sources of `first`. */
export const composePlans = (first: readonly Planned[], second: readonly Planned[]): readonly Planned[] => {
  const intermediate = new Map(first.map((tensor) => [tensor.key, tensor]))
  return second.map((tensor) => {
    const source = intermediate.get(tensor.parts[0]?.source ?? '')
    if (source?.mxfp4) return { ...source, key: tensor.key } // never fused with others
    return {
      ...tensor,
      parts: tensor.parts.flatMap(({ source, begin, end }) => slice(intermediate.get(source)!.parts, begin, end))
    }
  })
}
