import type { InternVL } from '../../models/internvl/internvl.js'
import { assistedLoop } from './assisted-decoding.js'
import { beamSearch } from './beam-search.js'
import { type GenerateOptions, isAssisted } from './generation-options.js'
import type { GenerateInputs } from './prefill.js'
import { type GenerationResult, type GenerationStream, prepareGeneration } from './prepare-generation.js'
import { samplingLoop } from './sampling-loop.js'

export type { RowCache } from './batch-cache.js'
export { disposeCache } from './batch-cache.js'
export type { GenerateOptions } from './generation-options.js'
export type { GenerateInputs } from './prefill.js'
export type { GenerationResult, GenerationStream, Step } from './prepare-generation.js'
export type { FinishReason } from './stopping.js'

/**
 * Generates one step at a time and returns all sequences at the end. Leaving early (`break`, `return()`) disposes every tensor.
 * Throws a `RangeError` that names the wrong option or input.
 *
 * `for await (const { tokens } of generate(model, inputs, { maxNewTokens: 64, eosTokenIds: [2] })) …`
 *
 * Source: `GenerationMixin.generate` (transformers 5.23).
 */
export const generate = (model: InternVL, inputs: GenerateInputs, options: GenerateOptions = {}): GenerationStream => {
  const loop = (options.numBeams ?? 1) > 1 ? beamSearch : isAssisted(options) ? assistedLoop : samplingLoop
  return loop(model, inputs, prepareGeneration(inputs, options))
}

/** Runs a generator to its end and returns its result; `onValue` receives each value. Closes the generator if `onValue` throws. */
export const runToEnd = async <T, R>(steps: AsyncGenerator<T, R, void>, onValue?: (value: T) => void): Promise<R> => {
  try {
    for (let next = await steps.next(); ; next = await steps.next()) {
      if (next.done) return next.value
      onValue?.(next.value)
    }
  } finally {
    await steps.return(undefined as never)
  }
}

/** Generates all tokens and returns the result. */
export const generateAll = async (
  model: InternVL,
  inputs: GenerateInputs,
  options: GenerateOptions = {}
): Promise<GenerationResult> => runToEnd(generate(model, inputs, options))

/** Pads sequences on the right to one length with `padTokenId`, as Transformers returns them. */
export const padSequences = (
  sequences: readonly (readonly number[])[],
  { padTokenId, eosTokenIds }: GenerateOptions = {}
): readonly (readonly number[])[] => {
  const longest = Math.max(0, ...sequences.map((ids) => ids.length))
  const fill = padTokenId ?? eosTokenIds?.[0] ?? 0
  return sequences.map((ids) => [...ids, ...Array<number>(longest - ids.length).fill(fill)])
}
