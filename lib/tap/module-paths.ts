import { editDistance } from '../error.js'
import type { Children, Module, Node, Param } from '../module.js'
import { matchesPath, type PathPattern } from './path-pattern.js'

export const isModule = (node: object): node is Module => '_tag' in node && node._tag === 'Module'
const isParam = (node: object): node is Param => '_tag' in node && node._tag === 'Param'

/** The paths of all modules inside a module, in definition order: `model`, `model.vision_tower`, …. The module itself has no path. */
export const modulePaths = (module: Module): readonly string[] => {
  const walk = (node: Node, path: string): readonly string[] => {
    if (isParam(node)) return []
    const here = isModule(node) && path !== '' ? [path] : []
    const children = Object.entries(isModule(node) ? node.children : (node as Children))
    return [...here, ...children.flatMap(([key, child]) => walk(child, path === '' ? key : `${path}.${key}`))]
  }
  return walk(module, '')
}

/** A path with its index names as `*`: all layers of a model are one path then. */
const withoutIndices = (path: string): string => path.replaceAll(/(?<=\.|^)\d+(?=\.|$)/g, '*')

/** Distance of a pattern from a path; a glob may leave out the first names of the path. */
const patternDistance = (pattern: string, path: string): number => {
  const names = path.split('.')
  return Math.min(...names.map((_, i) => editDistance(pattern, names.slice(i).join('.'))))
}

/** The three paths nearest to a pattern, with `*` for indices. */
const nearestPaths = (pattern: string, paths: readonly string[]): readonly string[] =>
  [...new Set(paths.map(withoutIndices))]
    .map((path) => ({ path, distance: patternDistance(withoutIndices(pattern), path) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ path }) => path)

/** Whether each path matches a pattern. Throws a `RangeError` that names a pattern without a match and the nearest paths. */
export const matchingPaths = (pattern: PathPattern, paths: readonly string[]): readonly string[] => {
  const matching = paths.filter(matchesPath(pattern))
  if (matching.length > 0) return matching
  const text = typeof pattern === 'string' ? pattern : pattern.source
  throw new RangeError(`tap: no module matches ${text || "''"}; near matches: ${nearestPaths(text, paths).join(', ')}`)
}
