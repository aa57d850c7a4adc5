import { type Command, InvalidArgumentError, Option } from 'commander'
import type { MemoryOptions } from '../../../models/checkpoint/memory-check.js'
import { type Dtype, dtypes, type PrecisionOptions, precisionOf } from '../../../models/quantization/precision.js'
import type { CacheOptions } from '../../../models/quantization/quantized-cache.js'

/** How the weights of a model shall lie in memory. */
export interface PrecisionFlags extends Pick<PrecisionOptions, 'quantize'> {
  readonly dtype?: Dtype
  readonly cache?: true
  readonly force?: true
}

/** `int8`, or by part, `vision=int8,decoder=4bit`, for commander. */
const quantization = (text: string): PrecisionFlags['quantize'] => {
  const parts = text.split(',').map((part) => part.split('=').map((side) => side.trim()))
  if (new Set(parts.map(([part]) => part)).size < parts.length) throw new InvalidArgumentError('A part is named twice.')
  const quantize = (text.includes('=') ? Object.fromEntries(parts) : text) as PrecisionFlags['quantize']
  try {
    precisionOf({ quantize })
    return quantize
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`)
  }
}

/** `--quantize`, with what it does. */
export const quantizeOption = (does: string): Option => new Option('--quantize <bits>', does).argParser(quantization)

/** Adds the options of `PrecisionFlags`. */
export const withPrecisionOptions = (command: Command): Command =>
  command
    .addOption(new Option('--dtype <type>', 'type of the weights in memory; float32 by default').choices(dtypes))
    .addOption(
      quantizeOption('weights in fewer bits: int8 or 4bit, or by part, vision=int8,decoder=4bit; others are bfloat16 then')
    )
    .option('--cache', 'keep what --quantize makes on disk, and load it from there the next time')
    .option('--force', 'load though the memory at hand seems to be too small')

/** Options for `load` from flags, those that were given. */
export const precisionOptions = ({
  dtype,
  quantize,
  cache,
  force
}: PrecisionFlags): PrecisionOptions & CacheOptions & MemoryOptions => ({
  ...(force ? { checkMemory: false } : {}),
  ...(cache ? { cache } : {}),
  ...(dtype === undefined ? {} : { dtype }),
  ...(quantize === undefined ? {} : { quantize })
})
