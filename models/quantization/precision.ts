import type { StoredDtype } from '../../lib/dtype.js'
import type { Form } from '../../lib/quantization/formats.js'

/** Types in which weights may lie in memory when nothing is quantized. Sums are always in float32. */
export const dtypes = ['float32', 'bfloat16'] as const
export type Dtype = (typeof dtypes)[number]

/** Numbers of weights in fewer bits, by the names of the command line. */
export const quantizations = ['int8', '4bit'] as const
export type Quantization = (typeof quantizations)[number]

/** Parts of a model that may be quantized by themselves. */
export const quantizedParts = ['vision', 'decoder'] as const
export type QuantizedParts = { readonly [P in (typeof quantizedParts)[number]]?: Quantization | false | undefined }

export interface PrecisionOptions {
  /** How weights lie in memory, `float32` by default; `bfloat16` halves the memory and is exact for files in bf16. */
  readonly dtype?: Dtype | undefined
  /**
   * Weights in fewer bits, for the whole model or part by part; a part that is `false` or missing stays as `dtype` says, by default
   * in bfloat16. `4bit` keeps the head in 6 bits, with the embeddings where they are its table too. Modules of few weights have a
   * finer form, see `formsOfKeys`; routers and norms are always in float32.
   */
  readonly quantize?: Quantization | QuantizedParts | undefined
}

/** The form of each part's weights. */
export interface Precision {
  /** Vision tower and projector. */
  readonly vision: Form | 'float32'
  readonly decoder: Form | 'float32'
  /** The head, and the table of embeddings if it is the head too. */
  readonly head: Form | 'float32'
}

const choose = <T extends string>(argument: string, known: readonly T[], value: unknown): T => {
  if (known.includes(value as T)) return value as T
  throw new RangeError(`${argument}: there is no ${JSON.stringify(value)}; it can be ${known.join(' or ')}`)
}

/** Which form each part has. Throws a `RangeError` that names the option and what it can be. */
export const precisionOf = ({ dtype, quantize }: PrecisionOptions = {}): Precision => {
  const plain = { float32: 'float32', bfloat16: 'bf16' } as const
  const base = plain[choose('dtype', dtypes, dtype ?? (quantize === undefined ? 'float32' : 'bfloat16'))]
  const parts: QuantizedParts = typeof quantize === 'object' ? quantize : { vision: quantize, decoder: quantize }
  for (const part of Object.keys(parts)) choose('quantize', quantizedParts, part)
  const formOf = (part: QuantizedParts['vision'], of4bit: Form): Form | 'float32' =>
    part === undefined || part === false ? base : choose('quantize', quantizations, part) === 'int8' ? 'int8' : of4bit
  return {
    vision: formOf(parts.vision, 'int4'),
    decoder: formOf(parts.decoder, 'int4'),
    head: formOf(parts.decoder, 'int6')
  }
}

/** The part that a weight belongs to, by its key in the module tree; embeddings are the head's where there is no other. */
export const partOf = (key: string, ownHead = false): keyof Precision => {
  if (/^(model\.)?(vision_tower|multi_modal_projector)\./.test(key)) return 'vision'
  return (ownHead ? /^lm_head\./ : /(^lm_head|\.embed_tokens)\./).test(key) ? 'head' : 'decoder'
}

/** A module with fewer weights takes a finer form. No attention, feed-forward or table of a released model has so few. */
export const fewWeights = 2 ** 16

/** The form that numbers of a file have in memory without losing anything. */
export const storedForm = (dtype: StoredDtype): Form | undefined => (dtype === 'BF16' ? 'bf16' : undefined)

/** The module that a weight's layer is part of: an attention for its q, k, v and output, which so have one form. */
const ownerOf = (key: string): string => key.split('.').slice(0, -2).join('.')

/**
 * The form of a weight, by its key and the type of its file, of those that may be packed: `sizes` has their keys in a module tree and
 * how many weights each is. It is that of the weight's part. Where a module's weights are few, fewer bits would cost precision and
 * save nothing: int8 where 4 bits are asked for, and where int8 is, as they are stored. `undefined` is float32.
 */
export const formsOfKeys = (
  precision: Precision,
  sizes: ReadonlyMap<string, number>
): ((key: string, dtype: StoredDtype) => Form | undefined) => {
  const ownHead = sizes.has('lm_head.weight')
  const owned = new Map<string, number>()
  for (const [key, size] of sizes) owned.set(ownerOf(key), (owned.get(ownerOf(key)) ?? 0) + size)
  return (key, dtype) => {
    const form = sizes.has(key) ? precision[partOf(key, ownHead)] : 'float32'
    const isSmall = owned.get(ownerOf(key))! < fewWeights
    if (isSmall && (form === 'int4' || form === 'int6')) return 'int8'
    if (isSmall && form === 'int8') return storedForm(dtype)
    return form === 'float32' ? undefined : form
  }
}
