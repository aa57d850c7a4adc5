import { valueText } from '../../../lib/error.js'
import type { GenerateOptions } from '../generation-options.js'

/** Fields of Transformers' `GenerationConfig` that `generate` refuses, each with what to do; their neutral values are accepted. */
const refusedOptions: Readonly<Record<string, readonly [neutral: readonly unknown[], advice: string]>> = {
  penaltyAlpha: [[0], 'contrastive search left Transformers; use sampling with topK'],
  dolaLayers: [[], 'DoLa left Transformers; leave it out'],
  numBeamGroups: [[1], 'group beam search left Transformers; use numBeams'],
  diversityPenalty: [[0], 'group beam search left Transformers; use numBeams'],
  constraints: [[], 'constrained beam search left Transformers; use responseFormat or logitsProcessors'],
  forceWordsIds: [[], 'constrained beam search left Transformers; use responseFormat or logitsProcessors'],
  lowMemory: [[false], 'leave it out: beams share their prompt'],
  decoderStartTokenId: [[], 'for models with an encoder; leave it out'],
  useCache: [[true], 'generation always caches keys and values; leave it out'],
  useMtp: [[false], 'no InternVL has heads for several tokens; use promptLookupNumTokens or assistantModel'],
  assistantEarlyExit: [[], 'for models trained with early exit; use assistantModel'],
  assistantLookbehind: [[], 'the assistant model must have the same tokenizer; leave it out'],
  targetLookbehind: [[], 'the assistant model must have the same tokenizer; leave it out'],
  assistantEnsembleWeight: [[], 'leave it out: tokens are those of the model alone'],
  numAssistantTokensSchedule: [['constant', 'heuristic', 'heuristic_transient'], 'the number of candidates adapts itself'],
  speculationType: [[], 'use promptLookupNumTokens or assistantModel'],
  cacheConfig: [[], "use cacheImplementation 'quantized' or kvCache"],
  maxCacheLen: [[], 'a static cache has room for maxNewTokens; leave it out']
}

/** Throws for options of Transformers that this library does not have, which callers without types may give. */
export const checkRefused = (o: GenerateOptions): void => {
  for (const [name, [neutral, advice]] of Object.entries(refusedOptions)) {
    const value = (o as Readonly<Record<string, unknown>>)[name]
    if (value !== undefined && value !== null && !neutral.includes(value))
      throw new RangeError(`${name}: ${valueText(value)} is not supported: ${advice}`)
  }
}
