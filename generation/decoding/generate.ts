import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { isRouted, routeInputs, withCompressedTiles } from '../flash/route-inputs.js'
import { assistedLoop } from './assisted-decoding.js'
import { disposeCache } from './batch-cache.js'
import { beamSearch } from './beam-search.js'
import { type GenerateOptions, isAssisted } from './generation-options.js'
import { checkOptions } from './options/check-options.js'
import { type GenerateInputs, promptsOf } from './prefill.js'
import { type GenerationResult, type GenerationStream, prepareGeneration } from './prepare-generation.js'
import { paddedPrompts } from './prompts/guidance.js'
import { healedPrompts } from './prompts/token-healing.js'
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
 * Source: `GenerationMixin.generate` (transformers 5.24).
 */
export const generate = (model: InternVL, inputs: GenerateInputs, options: GenerateOptions = {}): GenerationStream => {
  if (options.tokenHealing) return generateHealed(model, inputs, options)
  const loop = (options.numBeams ?? 1) > 1 ? beamSearch : isAssisted(options) ? assistedLoop : samplingLoop
  if (!isRouted(model, inputs, options)) return loop(model, inputs, prepareGeneration(inputs, options))
  checkOptions(options)
  if (options.assistantModel)
    throw new RangeError(
      'assistantModel: cannot be used with a router, which shortens the prompt for one model only; set flash: false'
    )
  return generateRouted(model, inputs, options, loop)
}

/** `generate` after the last token of each prompt was healed. */
async function* generateHealed(model: InternVL, inputs: GenerateInputs, options: GenerateOptions): GenerationStream {
  checkOptions(options)
  const { tokenizer, imageTokenId, kvCache, ropeLength, maxPositionEmbeddings, flash, signal, pause, prefillChunkSize } = options
  const pacing = { signal, pause, prefillChunkSize }
  const one = { ...pacing, imageTokenId, kvCache, ropeLength, maxPositionEmbeddings, flash, maxNewTokens: 1 }
  const prompts = await healedPrompts(promptsOf(inputs), inputs, tokenizer!, (trimmed, processor) =>
    generateAll(model, trimmed, { ...one, logitsProcessors: [processor] })
  )
  const { inputIds: _, attentionMask: __, promptIds: ___, ...images } = inputs
  const healed = { ...images, ...paddedPrompts(prompts) }
  try {
    const result = yield* generate(model, healed, { ...options, tokenHealing: false })
    return { ...result, prompts }
  } finally {
    healed.inputIds.dispose()
    healed.attentionMask.dispose()
  }
}

/** `generate` after the router of a Flash model has shortened the prompts. */
async function* generateRouted(
  model: InternVL,
  inputs: GenerateInputs,
  options: GenerateOptions,
  loop: typeof samplingLoop
): GenerationStream {
  const routed = await routeInputs(model, inputs, options)
  if (!routed) return abortedResult(inputs, options)
  try {
    const result = yield* loop(model, routed.inputs, prepareGeneration(routed.inputs, routed.options))
    const { routing } = routed
    return { ...result, ...(result.cache ? { cache: withCompressedTiles(result.cache, routing) } : {}), routing }
  } finally {
    routed.dispose()
  }
}

/** The result of rows that were stopped before the first forward. */
const abortedResult = (
  { inputIds }: GenerateInputs,
  { numReturnSequences = 1, outputLogprobs }: GenerateOptions
): GenerationResult => {
  const rows = Array.from({ length: inputIds.shape[0] * numReturnSequences })
  return {
    sequences: rows.map(() => []),
    finishReasons: rows.map(() => 'aborted' as const),
    ...(outputLogprobs ? { logprobs: rows.map(() => []) } : {})
  }
}

/** Disposes the tensors of a result: caches, attention weights and hidden states, where the options asked for them. */
export const disposeResult = ({ cache = [], attentions = [], hiddenStates = [] }: Partial<GenerationResult>): void => {
  for (const { kv } of cache) disposeCache(kv)
  for (const tensors of [...attentions, ...hiddenStates]) tf.dispose([...tensors])
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
