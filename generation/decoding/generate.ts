import type { InternVL } from '../../models/internvl/internvl.js'
import { beamSearch } from './beam-search.js'
import type { GenerateOptions } from './generation-options.js'
import { type Generation, type GenerationResult, planOf } from './generation-plan.js'
import type { GenerateInputs } from './prefill.js'
import { rowByRow } from './sampling-loop.js'

export type { RowCache } from './batch-cache.js'
export { disposeCache } from './batch-cache.js'
export type { GenerateOptions } from './generation-options.js'
export type { Generation, GenerationResult, Step } from './generation-plan.js'
export type { GenerateInputs } from './prefill.js'
export type { FinishReason } from './stopping.js'

/**
 * Generates one step at a time; the value at the end is all that was made.
 * Throws a `RangeError` that names the option or input wrong. Leaving early (`break`, `return()`) leaks nothing.
 *
 * `for await (const { tokens } of generate(model, inputs, { maxNewTokens: 64, eosTokenIds: [2] })) …`
 *
 * Source: `GenerationMixin.generate` (transformers 5.23).
 */
export const generate = (model: InternVL, inputs: GenerateInputs, options: GenerateOptions = {}): Generation =>
  ((options.numBeams ?? 1) > 1 ? beamSearch : rowByRow)(model, inputs, planOf(inputs, options))

/** Runs a generator to its end, for its result. */
export const generateAll = async (
  model: InternVL,
  inputs: GenerateInputs,
  options: GenerateOptions = {}
): Promise<GenerationResult> => {
  const steps = generate(model, inputs, options)
  while (true) {
    const { done, value } = await steps.next()
    if (done) return value
  }
}

/** Sequences of one length: those that ended early are filled up, as Transformers returns them. */
export const padSequences = (
  sequences: readonly (readonly number[])[],
  { padTokenId, eosTokenIds }: GenerateOptions = {}
): readonly (readonly number[])[] => {
  const longest = Math.max(0, ...sequences.map((ids) => ids.length))
  const fill = padTokenId ?? eosTokenIds?.[0] ?? 0
  return sequences.map((ids) => [...ids, ...Array<number>(longest - ids.length).fill(fill)])
}
