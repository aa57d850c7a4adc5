import type { Children, Module, Node } from './module.js'

const isModule = (node: Node): node is Module => '_tag' in node && node._tag === 'Module'
const isParam = (node: Node): boolean => '_tag' in node && node._tag === 'Param'

type Entries = ReadonlyArray<readonly [path: readonly string[], module: Module]>

/** The replacements inside the child `key`, with their paths from there. */
const inside = (entries: Entries, key: string): Entries =>
  entries.flatMap(([[first, ...rest], module]) => (first === key ? [[rest, module] as const] : []))

const replaced = (node: Node, entries: Entries, missing: (path: readonly string[]) => never): Node => {
  const [entry] = entries
  if (entry === undefined) return node
  const [path, module] = entry
  if (path.length === 0) return isModule(node) ? module : missing(path)
  const children = (isModule(node) ? node.children : node) as Children
  for (const [[first]] of entries) if (isParam(node) || !Object.hasOwn(children, first!)) missing([first!])
  const changed = Object.entries(children).map(
    ([key, child]) => [key, replaced(child, inside(entries, key), (rest) => missing([key, ...rest]))] as const
  )
  if (Array.isArray(node)) return changed.map(([, child]) => child)
  const record = Object.fromEntries(changed)
  return isModule(node) ? node.withChildren(record) : record
}

/**
 * A module with other modules at some of its paths. A replacement is called as the module in its place was called; its parameters may be
 * others. Throws a `RangeError` that names a path without a module, and the names that are there.
 *
 * `replaceModules(internVL(config), { 'model.multi_modal_projector': myProjector })`
 */
export const replaceModules = <P, F>(module: Module<P, F>, modules: Readonly<Record<string, Module>>): Module<P, F> => {
  const entries: Entries = Object.entries(modules).map(([path, replacement]) => [path.split('.'), replacement])
  const missing = (path: readonly string[]): never => {
    throw new RangeError(`replaceModules: no module at ${path.join('.')}; paths are those of the checkpoint's keys`)
  }
  return replaced(module, entries, missing) as Module<P, F>
}
