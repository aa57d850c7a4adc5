import type { StoredDtype } from '../../lib/dtype.js'
import { valueText } from '../../lib/error.js'
import { type KVCacheType, kvCacheTypes } from '../../lib/nn/attention/kv-cache.js'
import type { HalfFormat, QuantizationFormat } from '../../lib/quantization/formats.js'
import { partOfPath } from '../families.js'

/** Types of weights in memory where nothing is quantized. Sums are always in float32. */
export const dtypes = ['float32', 'bfloat16', 'float16'] as const
export type Dtype = (typeof dtypes)[number]

/** Quantizations of weights, by the names of the command line. */
export const quantizations = ['int8', 'int4'] as const
export type Quantization = (typeof quantizations)[number]

/** A quantization as an option names it; `4bit` is the name of `int4` before version 0.2. */
export type QuantizationName = Quantization | '4bit'

/** Parts of a model that may be quantized separately. */
const quantizedParts = ['vision', 'decoder'] as const
export type QuantizedParts = { readonly [P in (typeof quantizedParts)[number]]?: QuantizationName | false | undefined }

/** Types of activations, the inputs of linear layers. */
export const activationTypes = ['auto', 'float32', 'float16'] as const
export type Activations = (typeof activationTypes)[number]

export interface PrecisionOptions {
  /**
   * Type of weights in memory, `float32` by default; `bfloat16` halves the memory and is exact for files in bfloat16. `float16` halves it on
   * a GPU, and is exact for files in float16; on a CPU weights are rounded to float16 and stay float32 in memory.
   */
  readonly dtype?: Dtype | undefined
  /**
   * Quantization of the weights, for the whole model or for each part. A part that is `false` or missing has the type `dtype`,
   * `bfloat16` by default. `int4` keeps the head in 6 bits, and the embeddings too where they are the head. Small modules have a
   * finer format, see `formatsByKey`; routers and norms are always in float32.
   */
  readonly quantize?: QuantizationName | QuantizedParts | undefined
  /**
   * `auto`, the default, lets linear layers with quantized weights quantize their inputs too (to int8 or int16), and those with
   * bfloat16 weights round them to bfloat16, where that is faster. `float32` computes with the inputs as they are. `float16`, the default on
   * GPUs before Ampere, whose tensor cores have no bfloat16, and for float16 weights on a GPU: products in float16; the compiled kernels of
   * a CPU take it as `auto`.
   */
  readonly activations?: Activations | undefined
  /**
   * Type of keys and values in the KV cache: `bfloat16` takes half the memory of `float32`, `int8` about a quarter. By default
   * `bfloat16` where weights are quantized to int8 or int4, else `float32`. On a GPU by default the type of 16-bit products, which may be
   * `float16`; on a CPU `float16` is `float32`. Engines without kernels have `float32` alone.
   */
  readonly kvCache?: KVCacheType | undefined
}

/** The format of the weights of each part of a model. */
export interface Precision {
  /** Vision tower and projector. */
  readonly vision: QuantizationFormat | 'float32'
  readonly decoder: QuantizationFormat | 'float32'
  /** The head, and the embeddings where they are the head. */
  readonly head: QuantizationFormat | 'float32'
}

const choose = <T extends string>(argument: string, known: readonly T[], value: unknown): T => {
  if (known.includes(value as T)) return value as T
  throw new RangeError(`${argument}: there is no ${valueText(value)}; it can be ${known.join(' or ')}`)
}

/** Throws a `RangeError` for an unknown type of the KV cache. */
export const checkKVCacheType = (type: unknown = 'float32'): void => void choose('kvCache', kvCacheTypes, type)

/** The present name of a quantization. Throws a `RangeError` that lists the names. */
const quantizationNamed = (name: unknown): Quantization => choose('quantize', quantizations, name === '4bit' ? 'int4' : name)

/** The format of each part. Throws a `RangeError` that names the option and its possible values. */
export const precisionOf = ({ dtype, quantize: asked, activations, kvCache }: PrecisionOptions = {}): Precision => {
  const quantize = asked ?? undefined // null, as JSON has it, quantizes nothing
  choose('activations', activationTypes, activations ?? 'auto')
  checkKVCacheType(kvCache)
  const unquantized = { float32: 'float32', bfloat16: 'bf16', float16: 'f16' } as const
  const base = unquantized[choose('dtype', dtypes, dtype ?? (quantize === undefined ? 'float32' : 'bfloat16'))]
  const parts: QuantizedParts = typeof quantize === 'object' ? quantize : { vision: quantize, decoder: quantize }
  for (const part of Object.keys(parts)) choose('quantize', quantizedParts, part)
  const formatOf = (name: QuantizedParts['vision'], formatOfInt4: QuantizationFormat): QuantizationFormat | 'float32' => {
    if (name === undefined || name === false) return base
    return quantizationNamed(name) === 'int8' ? 'int8' : formatOfInt4
  }
  return {
    vision: formatOf(parts.vision, 'int4'),
    decoder: formatOf(parts.decoder, 'int4'),
    head: formatOf(parts.decoder, 'int6')
  }
}

/** The part whose format a weight has, by its path in the module tree. Without a separate head, the embeddings are the head. */
export const precisionPartOf = (path: string, hasSeparateHead = false): keyof Precision => {
  const part = partOfPath(path)
  if (part === 'vision' || part === 'projector' || part === 'quarterProjector') return 'vision'
  return part === 'head' || (part === 'embeddings' && !hasSeparateHead) ? 'head' : 'decoder'
}

/** Modules with fewer weights have a finer format. Attention, MLP and embeddings of released models are all larger. */
export const smallModuleSize = 2 ** 16

/** The format in which weights of a file are in memory without loss. */
export const storedFormat = (dtype: StoredDtype): HalfFormat | undefined =>
  dtype === 'BF16' ? 'bf16' : dtype === 'F16' ? 'f16' : undefined

/** Path of the module around a linear layer: q, k, v and output of an attention share one format. */
const enclosingModule = (key: string): string => key.split('.').slice(0, -2).join('.')

/**
 * The format of a weight by its key and the type of its file; `undefined` is float32. `sizes` has the keys of the quantizable
 * weights and their numbers of elements. The format is that of the weight's part. In a small module, where fewer bits would lose
 * precision and save nothing, int4 becomes int8, and int8 becomes the stored type.
 */
export const formatsByKey = (
  precision: Precision,
  sizes: ReadonlyMap<string, number>
): ((key: string, dtype: StoredDtype) => QuantizationFormat | undefined) => {
  const hasSeparateHead = [...sizes.keys()].some((key) => partOfPath(key) === 'head')
  const sizeOfModule = new Map<string, number>()
  for (const [key, size] of sizes) sizeOfModule.set(enclosingModule(key), (sizeOfModule.get(enclosingModule(key)) ?? 0) + size)
  return (key, dtype) => {
    const format = sizes.has(key) ? precision[precisionPartOf(key, hasSeparateHead)] : 'float32'
    const isSmall = sizeOfModule.get(enclosingModule(key))! < smallModuleSize
    if (isSmall && (format === 'int4' || format === 'int6')) return 'int8'
    if (isSmall && format === 'int8') return storedFormat(dtype)
    return format === 'float32' ? undefined : format
  }
}
