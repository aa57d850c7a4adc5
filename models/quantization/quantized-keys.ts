import { type Issue, issue } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { declarations } from '../../lib/params.js'
import { type Form, rowWords } from '../../lib/quantization/formats.js'
import type { Described } from '../checkpoint/fuse.js'
import { isJson, type Json } from '../config/config-fields.js'
import { partOf } from './precision.js'

/**
 * Packed weights in a checkpoint: the words of `model.….weight` `[N, K]` in int8 stand under `model.….weight.int8`, I32
 * `[N, words]`, as `lib/packed.ts` lays a row; so do those of int6 and int4. bf16 is a type of files, and weights in it are plain tensors.
 * config.json says so in `quantization_config`, without a `quant_method`: Transformers then refuses the folder, whereas it passes
 * over a method that it does not know, with a warning, and draws the weights that it misses at random.
 */
export const storedForms = ['int8', 'int6', 'int4'] as const satisfies readonly Form[]
export type StoredForm = (typeof storedForms)[number]
export const isStoredForm = (name: string): name is StoredForm => (storedForms as readonly string[]).includes(name)

/** The path of a weight, and the form in which a key says that it is stored. */
export const splitForm = (key: string): { readonly path: string; readonly form: StoredForm | undefined } => {
  const form = storedForms.find((each) => key.endsWith(`.${each}`))
  return { path: form ? key.slice(0, -form.length - 1) : key, form }
}

/** Whether some of the weights are packed. */
export const isPacked = (stored: readonly { readonly key: string }[]): boolean =>
  stored.some(({ key }) => splitForm(key).form !== undefined)

/** Shapes that a module declares, by key; of a weight that `keys` have in a packed form, those of its words. */
export const declaredShapes = (module: Module, keys: ReadonlySet<string>, prefix = ''): ReadonlyMap<string, readonly number[]> =>
  new Map(
    declarations(module).map(([path, { shape, packable }]) => {
      const key = prefix + path
      const form = packable ? storedForms.find((each) => keys.has(`${key}.${each}`)) : undefined
      return form ? [`${key}.${form}`, [shape[0]!, rowWords(form, shape[1]!)]] : [key, shape]
    })
  )

/** Packed weights that are no whole numbers of 32 bits. */
export const wordIssues = (stored: readonly Described[]): readonly Issue[] =>
  stored.flatMap(({ key, dtype }) =>
    splitForm(key).form && dtype !== 'I32'
      ? [issue('PackedType', `${key}: packed weights are stored as I32, these as ${dtype}`, { key, actual: dtype })]
      : []
  )

/** Of the way in which words lie in files, which is that of `lib/packed.ts`: another layout of a row there is another version. */
export const packedVersion = 1

/** What is packed, part by part, by the names that `quantize` has: `{ vision: 'int8', decoder: '4bit' }`. */
export const packedParts = (keys: Iterable<string>): Readonly<Record<string, 'int8' | '4bit'>> => {
  const found: Record<string, 'int8' | '4bit'> = {}
  for (const key of keys) {
    const { path, form } = splitForm(key)
    const part = partOf(path) === 'vision' ? 'vision' : 'decoder'
    if (form && found[part] !== '4bit') found[part] = form === 'int8' ? 'int8' : '4bit'
  }
  return found
}

/** config.json without what it says of packed weights, wherever it stands. */
export const withoutPackedNote = ({ quantization_config: _, ...json }: Json): Json =>
  Object.fromEntries(Object.entries(json).map(([key, value]) => [key, isJson(value) ? withoutPackedNote(value) : value]))

/** config.json with what says that the weights of these keys are packed, and nothing else of the kind. */
export const withPackedNote = (json: Json, keys: readonly string[]): Json => {
  const parts = packedParts(keys)
  const note =
    Object.keys(parts).length > 0 ? { quantization_config: { library: 'internvl-tfjs', version: packedVersion, ...parts } } : {}
  return { ...withoutPackedNote(json), ...note }
}
