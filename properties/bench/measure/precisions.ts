import type { LoadOptions } from '../../../generation/checkpoint/load.js'

/** Load options of every precision that can be measured, by their names on the command line. */
export const precisions = {
  float32: {},
  bfloat16: { dtype: 'bfloat16' },
  int8: { quantize: 'int8' },
  int4: { quantize: 'int4' }
} as const satisfies Readonly<Record<string, LoadOptions>>

export type PrecisionName = keyof typeof precisions

export const precisionNames = Object.keys(precisions) as readonly PrecisionName[]

/** Type in which Transformers is compared with a precision. Transformers has no quantized weights of its own on a CPU. */
export const transformersDtype = (precision: PrecisionName): 'float32' | 'bfloat16' =>
  precision === 'float32' ? 'float32' : 'bfloat16'

/** llama.cpp's format with about the same number of bits a weight. */
export const ggufTypes: { readonly [P in PrecisionName]?: 'Q8_0' | 'Q4_0' } = { int8: 'Q8_0', int4: 'Q4_0' }
