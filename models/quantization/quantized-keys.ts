import { type Issue, issue } from '../../lib/error.js'
import type { Module } from '../../lib/module.js'
import { declarations, namedParameters } from '../../lib/params.js'
import {
  type HalfFormat,
  isHalfFormat,
  packedRowLength,
  type QuantizationFormat,
  quantizationFormats
} from '../../lib/quantization/formats.js'
import type { Described } from '../checkpoint/fuse.js'
import { isJson, type Json } from '../config/config-fields.js'
import { precisionPartOf, type Quantization } from './precision.js'

/**
 * Quantized weights in a checkpoint: the packed int32 data of a weight `[N, K]` in int8 stands under `<path>.weight.int8`, type
 * I32, shape `[N, words]`, with the row layout of `lib/quantization/formats.ts`; int6 and int4 likewise. bfloat16 and float16 are types
 * of safetensors, and weights in them are ordinary tensors.
 * config.json has a `quantization_config` without a `quant_method`: Transformers then refuses the folder, whereas for an unknown
 * method it would warn and initialize the missing weights at random.
 */
export const storedFormats = ['int8', 'int6', 'int4'] as const satisfies readonly QuantizationFormat[]
export type StoredFormat = (typeof storedFormats)[number]
export const isStoredFormat = (name: string): name is StoredFormat => (storedFormats as readonly string[]).includes(name)

/** The path of a weight, and the quantization format that its key states. */
export const splitFormat = (key: string): { readonly path: string; readonly format: StoredFormat | undefined } => {
  const format = storedFormats.find((name) => key.endsWith(`.${name}`))
  return { path: format ? key.slice(0, -format.length - 1) : key, format }
}

/** The path of a weight in a parameter tree, and its format if that has 16 bits: in a file such a weight is an ordinary tensor. */
export const splitHalf = (key: string): { readonly path: string; readonly half: HalfFormat | undefined } => {
  const at = key.lastIndexOf('.')
  const half = key.slice(at + 1)
  return isHalfFormat(half) ? { path: key.slice(0, at), half } : { path: key, half: undefined }
}

/** Whether any of the weights is quantized. */
export const isQuantized = (stored: readonly { readonly key: string }[]): boolean =>
  stored.some(({ key }) => splitFormat(key).format !== undefined)

/** Whether a weight of a parameter tree has 16 bits or fewer. */
export const hasPackedWeights = (params: unknown): boolean =>
  namedParameters(params).some(([key]) => quantizationFormats.some((format) => key.endsWith(`.${format}`)))

/** Shapes that a module declares, by key; of a weight that `keys` has quantized, the shape of the packed data. */
export const declaredShapes = (module: Module, keys: ReadonlySet<string>, prefix = ''): ReadonlyMap<string, readonly number[]> =>
  new Map(
    declarations(module).map(([path, { shape, quantizable }]) => {
      const key = prefix + path
      const format = quantizable ? storedFormats.find((name) => keys.has(`${key}.${name}`)) : undefined
      return format ? [`${key}.${format}`, [shape[0]!, packedRowLength(format, shape[1]!)]] : [key, shape]
    })
  )

/** An error for every quantized weight whose data is not of type I32. */
export const packedTypeIssues = (stored: readonly Described[]): readonly Issue[] =>
  stored.flatMap(({ key, dtype }) =>
    splitFormat(key).format && dtype !== 'I32'
      ? [issue('QuantizedType', `${key}: quantized weights are stored as I32, these as ${dtype}`, { key, actual: dtype })]
      : []
  )

/** Version of the row layout of `lib/quantization/formats.ts` in files; another layout is another version. */
export const quantizedVersion = 1

/** The quantization of each part by the names of the option `quantize`: `{ vision: 'int8', decoder: 'int4' }`. */
export const quantizationOfParts = (keys: Iterable<string>): Readonly<Record<string, Quantization>> => {
  const found: Record<string, Quantization> = {}
  for (const key of keys) {
    const { path, format } = splitFormat(key)
    const part = precisionPartOf(path) === 'vision' ? 'vision' : 'decoder'
    if (format && found[part] !== 'int4') found[part] = format === 'int8' ? 'int8' : 'int4'
  }
  return found
}

/** config.json without `quantization_config`, at every depth. */
export const withoutQuantizationNote = ({ quantization_config: _, ...json }: Json): Json =>
  Object.fromEntries(Object.entries(json).map(([key, value]) => [key, isJson(value) ? withoutQuantizationNote(value) : value]))

/** config.json with the `quantization_config` that belongs to weights with these keys. */
export const withQuantizationNote = (json: Json, keys: readonly string[]): Json => {
  const parts = quantizationOfParts(keys)
  const quantizationConfig =
    Object.keys(parts).length > 0
      ? { quantization_config: { library: 'internvl-tfjs', version: quantizedVersion, ...parts } }
      : {}
  return { ...withoutQuantizationNote(json), ...quantizationConfig }
}
