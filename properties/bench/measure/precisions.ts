import * as E from 'fp-ts/lib/Either.js'
import { type InternVLCheckpoint, type LoadOptions, load } from '../../../generation/checkpoint/load.js'
import { openCheckpointTensors } from '../../../lib/safetensors/read.js'
import { quantizationOfParts } from '../../../models/quantization/quantized-keys.js'

/** Load options of every precision that can be measured, by their names on the command line. */
export const precisions = {
  float32: {},
  bfloat16: { dtype: 'bfloat16' },
  int8: { quantize: 'int8' },
  int4: { quantize: 'int4' }
} as const satisfies Readonly<Record<string, LoadOptions>>

export type PrecisionName = keyof typeof precisions

export const precisionNames = Object.keys(precisions) as readonly PrecisionName[]

/** The quantization of the decoder's weights in a folder, `int8` or `int4`; undefined where they are not quantized, or the folder cannot be read. */
export const storedQuantization = async (checkpoint: string): Promise<PrecisionName | undefined> => {
  const opened = await openCheckpointTensors(checkpoint)()
  if (E.isLeft(opened)) return undefined
  const { decoder, vision } = quantizationOfParts(opened.right.entries.keys())
  await opened.right.close()
  return decoder ?? vision
}

/** Loads a checkpoint in a precision; a folder with quantized weights as stored. */
export const loadIn = async (checkpoint: string, precision: PrecisionName): Promise<InternVLCheckpoint> =>
  load(checkpoint, (await storedQuantization(checkpoint)) ? {} : precisions[precision])

/** Type in which Transformers is compared with a precision. Transformers has no quantized weights of its own on a CPU. */
export const transformersDtype = (precision: PrecisionName): 'float32' | 'bfloat16' =>
  precision === 'float32' ? 'float32' : 'bfloat16'

/** llama.cpp's format with about the same number of bits a weight. */
export const ggufTypes: { readonly [P in PrecisionName]?: 'Q8_0' | 'Q4_0' } = { int8: 'Q8_0', int4: 'Q4_0' }
