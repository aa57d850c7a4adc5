import type * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from './error.js'
import type { Module, Param } from './module.js'
import { sizeOf } from './shape.js'
import { tf } from './tf.js'

/** Parameters by dotted path, as in a checkpoint file. */
export type StateDict = Readonly<Record<string, tf.Tensor>>

const join = (path: string, key: string | number): string => (path === '' ? `${key}` : `${path}.${key}`)

/** Declarations by module: a module never changes, and loading and inspecting one with thousands of experts asks for them many times. */
const declared = new WeakMap<Module, ReadonlyArray<readonly [key: string, param: Param]>>()

/** Declared parameters of a module in definition order, by checkpoint key. No tensor is created. */
export const declarations = (module: Module): ReadonlyArray<readonly [key: string, param: Param]> => {
  const before = declared.get(module)
  if (before) return before
  const found: (readonly [string, Param])[] = []
  const walk = (node: any, path: string): void => {
    if (node._tag === 'Param') found.push([path, node])
    else for (const [key, child] of Object.entries(node._tag === 'Module' ? node.children : node)) walk(child, join(path, key))
  }
  walk(module, '')
  declared.set(module, found)
  return found
}

const isTree = (x: unknown): x is object => typeof x === 'object' && x !== null && !(x instanceof tf.Tensor)

/** Leaves of a parameter tree in definition order: `[['encoder.layer.0.lambda_1', Tensor], …]`; absent leaves are omitted. */
export const namedParameters = (params: unknown, prefix = ''): ReadonlyArray<readonly [string, tf.Tensor]> => {
  const leaves: (readonly [string, tf.Tensor])[] = [] // pushed one by one: every training step walks its trees several times
  const walk = (node: unknown, path: string): void => {
    if (isTree(node)) for (const [key, child] of Object.entries(node)) walk(child, join(path, key))
    else if (node !== undefined) leaves.push([path, node as tf.Tensor])
  }
  walk(params, prefix)
  return leaves
}

/** The most entries of a group of `parameterGroups`, unless one leaf has more. */
const groupEntries = 1 << 20

/**
 * Leaves in groups for operations on many tensors at once: small leaves share an operation, and an operation over all leaves needs memory
 * for one group more.
 */
export const parameterGroups = (params: unknown): ReadonlyArray<ReadonlyArray<readonly [string, tf.Tensor]>> => {
  const groups: (readonly [string, tf.Tensor])[][] = []
  let entries = Number.POSITIVE_INFINITY
  for (const leaf of namedParameters(params)) {
    entries += leaf[1].size
    if (entries > groupEntries) {
      groups.push([])
      entries = leaf[1].size
    }
    groups.at(-1)!.push(leaf)
  }
  return groups
}

/** A new tree of the same structure with `f(leaf, path)` at every leaf; absent leaves stay absent. */
export const mapParams =
  (f: (leaf: tf.Tensor, path: string) => tf.Tensor) =>
  <P>(params: P): P => {
    const go = (x: any, path: string): any =>
      Array.isArray(x)
        ? x.map((v, i) => go(v, join(path, i)))
        : isTree(x)
          ? Object.fromEntries(Object.entries(x).map(([k, v]) => [k, go(v, join(path, k))]))
          : x === undefined
            ? x
            : f(x, path)
    return go(params, '')
  }

/** The tree as a flat record keyed by dotted path: `nn.Module.state_dict()`. */
export const stateDict = (params: unknown): StateDict => Object.fromEntries(namedParameters(params))

/** Builds a module's parameter tree with the value `leaf(path, param)` at every declared path. */
export const buildParams = <P>(module: Module<P, any>, leaf: (path: string, param: Param) => unknown): P => {
  const go = (node: any, path: string): any => {
    if (node._tag === 'Param') return leaf(path, node)
    const children = node._tag === 'Module' ? node.children : node
    return Array.isArray(children)
      ? children.map((child, i) => go(child, join(path, i)))
      : Object.fromEntries(Object.entries(children).map(([k, child]) => [k, go(child, join(path, k))]))
  }
  return go(module, '')
}

/** Initial parameters of a module, determined by the seed. */
export const initParams = <P>(module: Module<P, any>, seed = 0): P => {
  let n = 0
  return buildParams(module, (_, param) => param.init(seed * 100_003 + n++))
}

/** Compares declared shapes with actual shapes: missing keys, unexpected keys and shape mismatches, in that order. */
export const shapeIssues = (
  declared: ReadonlyMap<string, readonly number[]>,
  actual: ReadonlyMap<string, readonly number[]>
): readonly Issue[] => [
  ...[...declared].flatMap(([key, expected]) =>
    actual.has(key) ? [] : [issue('MissingKey', `${key}: missing (expected shape [${expected}])`, { key, expected })]
  ),
  ...[...actual.keys()].flatMap((key) =>
    declared.has(key) ? [] : [issue('UnexpectedKey', `${key}: unexpected, the model declares no such parameter`, { key })]
  ),
  ...[...declared].flatMap(([key, expected]) => {
    const shape = actual.get(key)
    return shape === undefined || tf.util.arraysEqual([...shape], [...expected])
      ? []
      : [issue('ShapeMismatch', `${key}: expected shape [${expected}], got [${shape}]`, { key, expected, actual: shape })]
  })
]

/** The parameter tree of a state dict, or all differences from the module's declarations. Errors: `MissingKey`, `UnexpectedKey`, `ShapeMismatch`. */
export const fromStateDict =
  <P>(module: Module<P, any>) =>
  (dict: StateDict): E.Either<Issues, P> => {
    const shapes = (entries: ReadonlyArray<readonly [string, { readonly shape: readonly number[] }]>) =>
      new Map(entries.map(([key, { shape }]) => [key, shape]))
    const issues = shapeIssues(shapes(declarations(module)), shapes(Object.entries(dict)))
    return whenValid(issues, () => buildParams(module, (path) => dict[path]!))
  }

/** Number of parameters (scalars) that a module declares. */
export const countParameters = (module: Module): number => declarations(module).reduce((n, [, { shape }]) => n + sizeOf(shape), 0)

/** A tree of the same structure as `P` whose leaves may be absent. */
export type PartialParams<P> = P extends tf.Tensor ? P | undefined : { readonly [K in keyof P]: PartialParams<P[K]> }

/**
 * Splits a tree in two of the same structure: leaves whose path satisfies `chosen`, and the others; `undefined` elsewhere.
 * `combine` undoes it. Source: `equinox.partition`.
 */
export const partition =
  (chosen: (path: string) => boolean) =>
  <P>(params: P): readonly [chosen: PartialParams<P>, rest: PartialParams<P>] => {
    const select = (wanted: boolean): any =>
      mapParams((leaf, path) => (chosen(path) === wanted ? leaf : (undefined as any)))(params)
    return [select(true), select(false)]
  }

/** Joins two partial trees of the same structure; where both have a leaf, the first wins. */
export const combine = <P>(a: PartialParams<P>, b: PartialParams<P>): P => {
  const go = (x: any, y: any): any => {
    if (x === undefined || x instanceof tf.Tensor) return x ?? y
    if (Array.isArray(x)) return x.map((v, i) => go(v, y[i]))
    return Object.fromEntries(Object.keys(x).map((k) => [k, go(x[k], y[k])]))
  }
  return go(a, b)
}

/** Disposes the tensors of `trees` that are not in `retained`. */
export const disposeExcept = (retained: unknown, ...trees: readonly unknown[]): void => {
  const retainedLeaves = new Set(namedParameters(retained).map(([, leaf]) => leaf))
  for (const [, leaf] of namedParameters(trees)) if (!retainedLeaves.has(leaf)) leaf.dispose()
}

/** Disposes every tensor of a tree once. */
export const disposeParams = (params: unknown): void => {
  for (const [, leaf] of namedParameters(params)) leaf.dispose()
}
