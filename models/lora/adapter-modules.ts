import type * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import { families, isWithin } from '../families.js'
import type { Shapes } from './lora-targets.js'

// PEFT's `modules_to_save`: modules that were trained in full beside LoRA; the adapter file has all their parameters.

const { head } = families[0].parts
const parentOf = (path: string): string => path.slice(0, path.lastIndexOf('.'))

/** The largest module around a parameter whose parameters were all trained; at least the parameter's own module. */
const largestTrainedModule = (paths: readonly string[], trained: ReadonlySet<string>, path: string): string => {
  const isTrained = (module: string) => paths.every((other) => !isWithin(module, other) || trained.has(other))
  let module = parentOf(path)
  while (module.includes('.') && parentOf(module) !== 'model' && isTrained(parentOf(module))) module = parentOf(module)
  return module
}

/**
 * The modules to save for parameters that were trained beside LoRA. `paths` are all parameters of a model, `lora` the modules with
 * LoRA. Errors: `NotSavable` for a module that contains LoRA.
 */
export const modulesToSave = (
  paths: readonly string[],
  lora: readonly string[],
  beside: readonly string[]
): E.Either<Issues, readonly string[]> => {
  const trained = new Set(beside)
  const chosen = [...new Set(beside.map((path) => largestTrainedModule(paths, trained, path)))]
  const issues = chosen.flatMap((module) => {
    const inside = lora.find((other) => isWithin(module, other))
    return inside === undefined
      ? []
      : [issue('NotSavable', `${module}: PEFT saves whole modules, and this module contains LoRA (${inside})`, { module })]
  })
  return whenValid(issues, () => chosen.filter((module) => !chosen.some((other) => other !== module && isWithin(other, module))))
}

/** Whether a path is in a module that one of the names matches. Source: PEFT's `_set_trainable`, which compares the ends of paths. */
export const isNamed = (names: readonly string[], path: string): boolean =>
  path.split('.').some((_, i, parts) => names.some((name) => parts.slice(0, i).join('.').endsWith(name)))

/** An error for every saved module or parameter that does not fit a model; of a tied model the head is that of the embeddings. */
export const savedModuleMismatches = (
  file: string,
  names: readonly string[],
  shapes: Shapes,
  saved: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  isTied: boolean
): readonly Issue[] => {
  if (names.length === 0) return []
  const named = [...shapes.keys()].filter((path) => isNamed(names, path))
  return [
    ...names
      .filter((name) => !named.some((path) => isNamed([name], path)) && !(isTied && isWithin(name, head)))
      .map((name) => issue('UnexpectedKey', `${file}: modules_to_save: this model has no module ${name}`, { file, key: name })),
    ...[...saved].flatMap(([key, { shape }]) => {
      const expected = isNamed(names, key) ? shapes.get(key) : undefined
      if (!expected) return [issue('UnexpectedKey', `${file}: this model has no parameter ${key} in a saved module`, { file, key })] // biome-ignore format: one line
      return tf.util.arraysEqual([...shape], [...expected])
        ? []
        : [issue('ShapeMismatch', `${file}: ${key}: expected shape [${expected}], got [${shape}]`, { file, key })]
    }),
    ...named
      .filter((key) => !saved.has(key))
      .map((key) => issue('MissingKey', `${file}: ${key} is missing from a saved module`, { file, key }))
  ]
}

/** The tree with the given leaves at their paths, also in the place of quantized weights; the rest is shared with the given tree. */
export const replaceLeaves = <P>(params: P, leaves: ReadonlyMap<string, tf.Tensor>): P => {
  const walk = (node: unknown, path: string): unknown => {
    const leaf = leaves.get(path)
    if (leaf) return leaf
    if (typeof node !== 'object' || node === null || node instanceof tf.Tensor) return node
    const childPath = (key: string | number) => (path === '' ? `${key}` : `${path}.${key}`)
    if (Array.isArray(node)) return node.map((child, i) => walk(child, childPath(i)))
    return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, walk(child, childPath(key))]))
  }
  return leaves.size === 0 ? params : (walk(params, '') as P)
}
