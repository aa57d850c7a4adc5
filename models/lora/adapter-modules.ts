import type * as E from 'fp-ts/lib/Either.js'
import { type Issue, type Issues, issue, whenValid } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import type { Shapes } from './lora.js'

// PEFT's `modules_to_save`: modules that were trained as a whole, beside LoRA, and stand in an adapter's file with all they have.

const table = 'embed_tokens.weight'
const ownerOf = (path: string): string => path.slice(0, path.lastIndexOf('.'))

/** Whether a path is a module's, or of something in it. */
export const within = (module: string, path: string): boolean => path === module || path.startsWith(`${module}.`)

/** The largest module around a parameter of which all is trained; at least the one that it is of. */
const around = (paths: readonly string[], trained: ReadonlySet<string>, path: string): string => {
  const isWhole = (module: string) => paths.every((each) => !within(module, each) || trained.has(each))
  let module = ownerOf(path)
  while (module.includes('.') && ownerOf(module) !== 'model' && isWhole(ownerOf(module))) module = ownerOf(module)
  return module
}

/**
 * The modules to save for parameters that were trained beside LoRA: `paths` are all of a model, `lora` the modules that have LoRA.
 * Errors: `NotSavable`, a parameter of a module that has LoRA in it, or of an embedding table that is the head too.
 */
export const savedModules = (
  paths: readonly string[],
  lora: readonly string[],
  beside: readonly string[]
): E.Either<Issues, readonly string[]> => {
  const trained = new Set(beside)
  const tied = paths.some((path) => path.endsWith(table)) && !paths.some((path) => path.startsWith('lm_head.'))
  const chosen = [...new Set(beside.map((path) => around(paths, trained, path)))]
  const issues = chosen.flatMap((module) => {
    const inside = lora.find((each) => within(module, each))
    if (inside !== undefined) return [issue('NotSavable', `${module}: PEFT saves whole modules, and this one has LoRA in it (${inside})`, { module })] // biome-ignore format: one line
    return tied && paths.some((path) => within(module, path) && path.endsWith(table))
      ? [issue('NotSavable', `${module}: its embeddings are the head too, which PEFT keeps apart`, { module })]
      : []
  })
  return whenValid(issues, () => chosen.filter((module) => !chosen.some((other) => other !== module && within(other, module))))
}

/** Whether a path is in a module that the names mean. Source: PEFT's `_set_trainable`, which compares ends. */
const isNamed = (names: readonly string[], path: string): boolean =>
  path.split('.').some((_, i, parts) => names.some((name) => parts.slice(0, i).join('.').endsWith(name)))

/** All that keeps saved modules from fitting a model, key by key. */
export const savedMisfits = (
  file: string,
  names: readonly string[],
  shapes: Shapes,
  saved: ReadonlyMap<string, { readonly shape: readonly number[] }>
): readonly Issue[] => {
  if (names.length === 0) return []
  const meant = [...shapes.keys()].filter((path) => isNamed(names, path))
  const tied = meant.filter((path) => path.endsWith(table) && !shapes.has('lm_head.weight'))
  return [
    ...names
      .filter((name) => !meant.some((path) => isNamed([name], path)))
      .map((name) => issue('UnexpectedKey', `${file}: modules_to_save: ${name} is no module of this model`, { file, key: name })),
    ...tied.map((key) => issue('UnexpectedKey', `${file}: ${key} is the head of this model too, and cannot be replaced alone`, { file, key })), // biome-ignore format: one line
    ...[...saved].flatMap(([key, { shape }]) => {
      const expected = isNamed(names, key) ? shapes.get(key) : undefined
      if (!expected) return [issue('UnexpectedKey', `${file}: ${key} is no parameter of a saved module of this model`, { file, key })] // biome-ignore format: one line
      return tf.util.arraysEqual([...shape], [...expected])
        ? []
        : [issue('ShapeMismatch', `${file}: ${key}: expected shape [${expected}], got [${shape}]`, { file, key })]
    }),
    ...meant
      .filter((key) => !saved.has(key))
      .map((key) => issue('MissingKey', `${file}: ${key} is missing, of a module that is saved`, { file, key }))
  ]
}

/** The tree with other leaves at some paths, packed ones too; the rest is shared with the tree given. */
export const withLeaves = <P>(params: P, leaves: ReadonlyMap<string, tf.Tensor>): P => {
  const go = (node: unknown, path: string): unknown => {
    const leaf = leaves.get(path)
    if (leaf) return leaf
    if (typeof node !== 'object' || node === null || node instanceof tf.Tensor) return node
    const at = (key: string | number) => (path === '' ? `${key}` : `${path}.${key}`)
    if (Array.isArray(node)) return node.map((child, i) => go(child, at(i)))
    return Object.fromEntries(Object.entries(node).map(([key, child]) => [key, go(child, at(key))]))
  }
  return leaves.size === 0 ? params : (go(params, '') as P)
}
