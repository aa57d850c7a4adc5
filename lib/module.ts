import { tf } from './tf.js'

/**
 * A declared parameter: the leaf of a module tree. `shape` is the checkpoint's shape (PyTorch layout),
 * `init` makes a fresh value, pseudo-random from `seed` where it is random.
 */
export interface Param<T = tf.Tensor> {
  readonly _tag: 'Param'
  readonly shape: readonly number[]
  readonly init: (seed: number) => T
  /** Whether the parameter is a weight `[out, in]` that may be quantized in memory (`quantization/formats.ts`). */
  readonly quantizable?: boolean
}

/** A layer: the tree of declared parameters, and a pure function that reads them (a `Reader<P, F>`). */
export interface Module<P = any, F = any> {
  readonly _tag: 'Module'
  readonly children: Children
  /** Builds the forward function from the bound children, as `module` received it; `apply` binds and tidies. */
  readonly forward: (self: never) => F
  readonly apply: (params: P, binding?: Binding) => F
  /** The same module with other children under the same names; see `replaceModules`. */
  readonly withChildren: (children: Children) => Module<any, F>
}

/** Taps while a module binds its children: the binding of a child, `undefined` for a child without taps, and the change of a bound forward. */
export interface Binding {
  readonly child: (key: string) => Binding | undefined
  readonly wrap: <F>(forward: F) => F
}

/** Key that marks a bound forward function whose output a tap reads or replaces; see `isTapped`. */
export const tapped: unique symbol = Symbol('tapped')

/** Whether a tap lies on a bound forward function: a fused kernel must not compute past it. */
export const isTapped = (forward: unknown): boolean => typeof forward === 'function' && tapped in forward

/** A declaration under one name: a parameter, a module, a list or a record of them. */
export type Node = Param<any> | Module | readonly Node[] | Children
export interface Children {
  readonly [key: string]: Node
}

/** The parameter tree of a node: the same keys, a tensor at every `Param`. Its dotted paths are checkpoint keys. */
export type Params<N> =
  N extends Param<infer T> ? T : N extends Module<infer P, any> ? P : { readonly [K in keyof N]: Params<N[K]> }

/** A node inside a forward function: tensors for parameters, callables for sub-modules. */
export type Bound<N> =
  N extends Param<infer T> ? T : N extends Module<any, infer F> ? F : { readonly [K in keyof N]: Bound<N[K]> }

/** A pure function of tensors; generic over rank where the layer keeps the rank. */
export type Forward = (...inputs: any[]) => any

const bind = (node: any, params: any, binding?: Binding): any => {
  if (node._tag === 'Module') return node.apply(params, binding)
  if (node._tag === 'Param') return params
  if (Array.isArray(node)) return node.map((child, i) => bind(child, params[i], binding?.child(`${i}`)))
  return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, bind(child, params[key], binding?.child(key))]))
}

const wrapped = <F>(forward: F, binding: Binding | undefined): F => (binding ? binding.wrap(forward) : forward)

/** The function in `tf.tidy`, with its function properties in `tf.tidy` too; symbol-keyed properties are copied unchanged. */
const tidied = (f: any): any => {
  if (typeof f !== 'function') return f
  const properties = Object.fromEntries(Object.entries(f).map(([name, property]) => [name, tidied(property)]))
  return Object.assign((...inputs: any[]) => tf.tidy(() => f(...inputs)), f, properties)
}

/**
 * Defines a module from its children and a forward function, which may carry further functions as properties.
 * Every forward runs in `tf.tidy`: a layer returns tensors (or records of them) and never disposes one.
 *
 * `module({ weight: ones([D]) }, (self) => (x: tf.Tensor2D) => x.mul(self.weight))`
 */
export const module = <C extends Children, F extends Forward>(
  children: C,
  forward: (self: Bound<C>) => F
): Module<Params<C>, F> => ({
  _tag: 'Module',
  children,
  forward: forward as unknown as (self: never) => F, // comparing the types of `self` does not end
  apply: (params, binding) => wrapped(tidied(forward(bind(children, params, binding))), binding),
  withChildren: (others) => module(others as C, forward) as Module<any, F>
})

/** `n` copies of a layer, keyed `0`, `1`, …: `nn.ModuleList`. */
export const repeat = <M extends Module>(n: number, layer: (index: number) => M): readonly M[] =>
  Array.from({ length: n }, (_, i) => layer(i))

/** The identity layer, without parameters: keeps the path of an optional layer (`nn.Identity`). */
export const identity: Module<Record<never, never>, <T extends tf.Tensor>(x: T) => T> = {
  _tag: 'Module',
  children: {},
  forward: () => (x) => x,
  apply: (_, binding) => wrapped((x) => x, binding),
  withChildren: () => identity
}
