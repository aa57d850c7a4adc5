import type { LoadOptions } from '../../../generation/checkpoint/load.js'

/** How a model can be loaded to be measured, by the names of the command line. */
export const precisions = {
  float32: {},
  bfloat16: { dtype: 'bfloat16' },
  int8: { quantize: 'int8' },
  '4bit': { quantize: '4bit' }
} as const satisfies Readonly<Record<string, LoadOptions>>

export type PrecisionName = keyof typeof precisions

export const precisionNames = Object.keys(precisions) as readonly PrecisionName[]

/** What Transformers computes in to be compared with: it has no packed weights of its own on a CPU. */
export const transformersDtype = (precision: PrecisionName): 'float32' | 'bfloat16' =>
  precision === 'float32' ? 'float32' : 'bfloat16'

/** What llama.cpp has for the same number of bits, where it has it. */
export const ggufTypes: { readonly [P in PrecisionName]?: 'Q8_0' | 'Q4_0' } = { int8: 'Q8_0', '4bit': 'Q4_0' }
