import type { Module } from '../../module.js'

/** A call of a sub-module, by its name. */
export interface CallNode {
  readonly op: 'call'
  readonly target: string
  readonly args: ReadonlyArray<TraceNode | undefined>
}

/** A value in a symbolic trace, as `torch.fx.Node`: an input, a call of a sub-module, a property of its result, a sum. */
export type TraceNode =
  | { readonly op: 'input'; readonly name: string }
  | CallNode
  | { readonly op: 'get'; readonly of: CallNode; readonly key: string }
  | { readonly op: 'add'; readonly left: TraceNode; readonly right: TraceNode | undefined }

const nodeKey: unique symbol = Symbol('node')

/** The node behind a symbolic value; `undefined` for any other value. */
export const nodeOf = (value: unknown): TraceNode | undefined =>
  typeof value === 'object' && value !== null ? (value as { readonly [nodeKey]?: TraceNode })[nodeKey] : undefined

/**
 * A value that records `.add` and, for the result of a call, property reads. Everything else throws, so that a forward which depends
 * on shapes or numbers has no trace.
 */
const symbolic = (node: TraceNode): object =>
  new Proxy(
    {},
    {
      has: (_, key) => typeof key === 'string' && node.op === 'call',
      get: (_, key) => {
        if (key === nodeKey) return node
        if (key === 'add') return (other: unknown) => symbolic({ op: 'add', left: node, right: nodeOf(other) })
        if (node.op === 'call' && typeof key === 'string') return symbolic({ op: 'get', of: node, key })
        throw new TypeError(`symbolicTrace: a forward that reads ${String(key)} of a value has no trace`)
      }
    }
  )

/**
 * Runs a module's forward on symbolic inputs, with sub-modules as opaque calls, and returns what `match` finds in the output. The
 * result is `undefined` where the forward does more than call its direct sub-modules and add their results. Source: the idea of `torch.fx`.
 */
export const symbolicTrace = <A>(
  { children, forward }: Module,
  inputs: readonly string[],
  match: (output: unknown, inputs: readonly TraceNode[]) => A | undefined
): A | undefined => {
  const record =
    (target: string) =>
    (...args: readonly unknown[]) =>
      symbolic({ op: 'call', target, args: args.map(nodeOf) })
  const self = Object.fromEntries(
    Object.entries(children).flatMap(([key, child]) => ('_tag' in child && child._tag === 'Module' ? [[key, record(key)]] : []))
  )
  const nodes = inputs.map((name): TraceNode => ({ op: 'input', name }))
  try {
    return match(forward(self as never)(...nodes.map(symbolic)), nodes)
  } catch {
    return undefined // the forward uses values in another way
  }
}
