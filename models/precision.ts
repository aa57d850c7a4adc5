import type { Form } from '../lib/packed.js'

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
   * in bfloat16. `4bit` keeps the head in int8, with the
   * embeddings where they are its table too.
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
    head: formOf(parts.decoder, 'int8')
  }
}

/** The part that a weight belongs to, by its key in the module tree; embeddings are the head's where there is no other. */
export const partOf = (key: string, ownHead = false): keyof Precision => {
  if (/^(model\.)?(vision_tower|multi_modal_projector)\./.test(key)) return 'vision'
  return (ownHead ? /^lm_head\./ : /(^lm_head|\.embed_tokens)\./).test(key) ? 'head' : 'decoder'
}

/** The form of each weight of these keys of a module tree, all of which may be packed. */
export const formsOfKeys = (precision: Precision, packable: ReadonlySet<string>): ((key: string) => Form | undefined) => {
  const ownHead = packable.has('lm_head.weight')
  return (key) => {
    const form = packable.has(key) ? precision[partOf(key, ownHead)] : 'float32'
    return form === 'float32' ? undefined : form
  }
}
