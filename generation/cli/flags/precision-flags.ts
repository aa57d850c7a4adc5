import { type Command, InvalidArgumentError, Option } from 'commander'
import { type KVCacheType, kvCacheTypes } from '../../../lib/nn/attention/kv-cache.js'
import type { MemoryOptions } from '../../../models/checkpoint/memory-check.js'
import {
  type Activations,
  activationTypes,
  type Dtype,
  dtypes,
  type PrecisionOptions,
  precisionOf
} from '../../../models/quantization/precision.js'
import type { CacheOptions } from '../../../models/quantization/quantized-cache.js'

/** Options for the precision of the weights in memory. */
export interface PrecisionFlags extends Pick<PrecisionOptions, 'quantize'> {
  readonly dtype?: Dtype
  readonly activations?: Activations
  readonly kvCache?: KVCacheType
  readonly cache?: true
  readonly force?: true
}

/** Parses `int8`, or formats by part, `vision=int8,decoder=int4`, for commander. */
const quantization = (text: string): PrecisionFlags['quantize'] => {
  const parts = text.split(',').map((part) => part.split('=').map((side) => side.trim()))
  if (new Set(parts.map(([part]) => part)).size < parts.length) throw new InvalidArgumentError('A part is given twice.')
  const quantize = (text.includes('=') ? Object.fromEntries(parts) : text) as PrecisionFlags['quantize']
  try {
    precisionOf({ quantize })
    return quantize
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`)
  }
}

/** The option `--quantize` with a description. */
export const quantizeOption = (description: string): Option =>
  new Option('--quantize <format>', description).argParser(quantization)

/** Adds the options of `PrecisionFlags`. */
export const withPrecisionOptions = (command: Command): Command =>
  command
    .addOption(new Option('--dtype <type>', 'type of the weights in memory; default: float32').choices(dtypes))
    .addOption(
      quantizeOption('quantize the weights: int8 or int4, or by part, vision=int8,decoder=int4; other weights become bfloat16')
    )
    .addOption(
      new Option(
        '--activations <type>',
        'type of the inputs of linear layers; auto: quantized where that is faster, float32: never, float16: on a GPU products in float16, on a CPU as auto; default: auto'
      ).choices(activationTypes)
    )
    .addOption(
      new Option(
        '--kv-cache <type>',
        'type of keys and values in the KV cache; default: bfloat16 for quantized weights, else float32'
      ).choices(kvCacheTypes)
    )
    .option('--cache', 'store the quantized weights on disk, and load them from there the next time')
    .option('--force', 'load even if the available memory seems too small')

/** The options of `load` that were given as flags. */
export const precisionOptions = ({
  dtype,
  activations,
  kvCache,
  quantize,
  cache,
  force
}: PrecisionFlags): PrecisionOptions & CacheOptions & MemoryOptions => ({
  ...(force ? { checkMemory: false } : {}),
  ...(cache ? { cache } : {}),
  ...(dtype === undefined ? {} : { dtype }),
  ...(activations === undefined ? {} : { activations }),
  ...(kvCache === undefined ? {} : { kvCache }),
  ...(quantize === undefined ? {} : { quantize })
})
