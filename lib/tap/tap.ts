import { type Binding, type Module, tapped } from '../module.js'
import { fusible } from '../nn/residual.js'
import { ShapeError } from '../shape.js'
import { tf } from '../tf.js'
import { isModule, matchingPaths, modulePaths } from './module-paths.js'
import type { PathPattern } from './path-pattern.js'

/** One call of a module with a tap. */
export interface TapContext {
  /** The path of the module: `model.language_model.layers.3.mlp`. */
  readonly path: string
  /** The inputs of the call, as the module's forward function received them. Stacked experts have the expert's number first. */
  readonly inputs: readonly [x: tf.Tensor, ...others: unknown[]]
  /** Calls the module again, with other inputs, and returns its output tensor; taps of the module are not applied. */
  readonly forward: (...inputs: readonly unknown[]) => tf.Tensor
}

/**
 * A pure function of a module's output tensor: returns the tensor that replaces it, of the same shape; `y` itself changes nothing.
 * Of a module whose output is a record, `y` is the tensor `hidden` (layers, attention, mixtures of experts, decoders) or
 * `lastHiddenState` (vision towers). A tap runs in `tf.tidy`. A parameter may have a narrower type of tensor.
 */
export type Tap = {
  // a method: its parameters are compared bivariantly
  bivariant(y: tf.Tensor, context: TapContext): tf.Tensor
}['bivariant']

/** Taps by patterns of module paths, as a record or as pairs; where several match, they run in this order. */
export type Taps = Readonly<Record<string, Tap>> | ReadonlyArray<readonly [pattern: PathPattern, tap: Tap]>

/** A holder of taps, such as the recorder of `record`. */
export interface TapsHolder {
  readonly taps: Taps
}

/** A value with a bound module, such as a loaded checkpoint; `withModule` binds another module to the same parameters. */
export interface Rebindable<M extends Module> {
  readonly module: M
  withModule(module: M): Rebindable<M>
}

/** Names of the tensor that stands for a record in taps. */
const outputNames = ['hidden', 'lastHiddenState'] as const

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !(value instanceof tf.Tensor)

/** The name of a record's output tensor; `undefined` for a plain tensor. Throws a `RangeError` for any other output. */
const outputName = (path: string, output: unknown): string | undefined => {
  if (output instanceof tf.Tensor) return undefined
  const name = isRecord(output) ? outputNames.find((key) => output[key] instanceof tf.Tensor) : undefined
  if (name) return name
  throw new RangeError(`tap: ${path}: its output is no tensor, and no record with ${outputNames.join(' or ')}`)
}

const outputTensor = (path: string, output: unknown): tf.Tensor => {
  const name = outputName(path, output)
  return (name === undefined ? output : (output as Record<string, unknown>)[name]) as tf.Tensor
}

const checked = (path: string, y: tf.Tensor, result: unknown): tf.Tensor => {
  if (!(result instanceof tf.Tensor))
    throw new ShapeError(`tap: ${path}: expected a tensor [${y.shape}], got ${typeof result}; return y to change nothing`)
  if (!tf.util.arraysEqual(result.shape, y.shape) || result.dtype !== y.dtype)
    throw new ShapeError(`tap: ${path}: expected ${y.dtype} [${y.shape}], got ${result.dtype} [${result.shape}]`)
  return result
}

type AnyForward = (...inputs: readonly unknown[]) => unknown

/** The forward function with its taps. Its function properties are those of `forward`. */
const withTaps = (forward: AnyForward, path: string, taps: readonly Tap[]): AnyForward =>
  Object.assign(
    (...inputs: readonly unknown[]) =>
      tf.tidy(() => {
        const output = forward(...inputs)
        const y = outputTensor(path, output)
        const context = {
          path,
          inputs: inputs as TapContext['inputs'],
          forward: (...others: readonly unknown[]) => outputTensor(path, forward(...others))
        }
        const result = taps.reduce((before, tap) => checked(path, before, tap(before, context)), y)
        if (result === y) return output as tf.TensorContainer
        const name = outputName(path, output)
        const owned = result.clone() // a tap may return its input, or a tensor of another run, which the model must not dispose
        return name === undefined ? owned : { ...(output as object), [name]: owned }
      }),
    forward,
    { [tapped]: true, [fusible]: undefined }
  )

/** The forward of a module with a tap inside: fused kernels must not compute the module as a whole. */
const unfused = <F>(forward: F): F =>
  typeof forward === 'function'
    ? Object.assign((...inputs: readonly unknown[]) => (forward as unknown as AnyForward)(...inputs), forward, {
        [fusible]: undefined
      })
    : forward

const pairsOf = (taps: Taps): ReadonlyArray<readonly [PathPattern, Tap]> =>
  Array.isArray(taps) ? taps : Object.entries(taps as Readonly<Record<string, Tap>>)

/** The taps of each path that some pattern matches. */
const tapsByPath = (module: Module, taps: Taps): ReadonlyMap<string, readonly Tap[]> => {
  const paths = modulePaths(module)
  const byPath = new Map<string, readonly Tap[]>()
  for (const [pattern, tap] of pairsOf(taps))
    for (const path of matchingPaths(pattern, paths)) byPath.set(path, [...(byPath.get(path) ?? []), tap])
  return byPath
}

/** The binding of the module at `path`; `undefined` where no tap lies on it or inside it, so that the module is bound as ever. */
const bindingAt = (byPath: ReadonlyMap<string, readonly Tap[]>, path: string): Binding | undefined => {
  const taps = byPath.get(path)
  const isAbove = path === '' || [...byPath.keys()].some((key) => key.startsWith(`${path}.`))
  if (!taps && !isAbove) return undefined
  return {
    child: (key) => bindingAt(byPath, path === '' ? key : `${path}.${key}`),
    wrap: (forward) =>
      taps ? (withTaps(forward as unknown as AnyForward, path, taps) as unknown as typeof forward) : unfused(forward)
  }
}

/** Both bindings: the inner taps run first. */
const composed = (inner: Binding | undefined, outer: Binding | undefined): Binding | undefined => {
  if (!inner || !outer) return inner ?? outer
  return {
    child: (key) => composed(inner.child(key), outer.child(key)),
    wrap: (forward) => outer.wrap(inner.wrap(forward))
  }
}

/**
 * The same module, or a checkpoint with the same parameters, in which the outputs of named modules are read or replaced:
 *
 * `tap(module, { 'model.language_model.layers.*.mlp': (y, { path, inputs }) => y.mul(0.5) })`
 *
 * A key is a pattern of module paths, as in `train.only`: a glob (`*` for one name, `**` for any number) that matches the last names.
 * Taps work under gradients and in every step of `generate`. Where no tap lies, fused kernels run as before; where one lies inside a
 * fused part, that part alone runs op by op. Taps of several calls compose: the first call's run first. With gradient checkpointing,
 * a tap runs again in the backward pass. Throws a `RangeError` that names a pattern without a match and the nearest paths.
 */
export const tap = <T extends Module | Rebindable<Module>>(target: T, taps: Taps | TapsHolder): T => {
  const given = 'taps' in taps && typeof taps.taps === 'object' ? (taps.taps as Taps) : (taps as Taps)
  if (!isModule(target)) return target.withModule(tap(target.module, given)) as T
  const binding = bindingAt(tapsByPath(target, given), '')
  return { ...target, apply: (params: never, outer?: Binding) => target.apply(params, composed(binding, outer)) }
}
