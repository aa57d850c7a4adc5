import { positionAt } from '../../../models/internvl/v2pe.js'
import { disposeCache, generate } from '../../decoding/generate.js'
import { type GenerateOptions, isAssisted, type LogitsProcessor } from '../../decoding/generation-options.js'
import { withoutInnerOutputs } from '../../decoding/outputs/inner-outputs.js'
import type { GenerateInputs } from '../../decoding/prefill.js'
import { type GenerationResult, type GenerationStream, prepareGeneration } from '../../decoding/prepare-generation.js'
import { isGuided } from '../../decoding/prompts/guidance.js'
import { responseConstraint } from '../../structured/response-processor.js'
import type { EngineRequest } from '../engine-types.js'
import { makeProcessors } from './named-processors.js'
import { type PromptInputs, promptInputs } from './prompt-inputs.js'
import { type ProcessEvent, type RequestContext, requestOptions } from './request-context.js'
import { answerDecoder, sendSteps } from './send-steps.js'

/**
 * A name for the requests whose rows may share a forward: rotary frequencies beyond the trained length depend on the longest row of
 * the batch, so a request that may become so long is decoded alone.
 */
const groupKey = (
  { internvl: { config } }: RequestContext,
  positions: readonly number[],
  { maxNewTokens = 0, ropeLength = 0 }: GenerateOptions,
  alone: string
): string => {
  const { rope, maxPositionEmbeddings } = config.textConfig
  const trained = rope.originalMaxPositionEmbeddings ?? maxPositionEmbeddings
  const dependsOnLength = rope.ropeType === 'dynamic' || rope.ropeType === 'longrope'
  const longest = Math.max(ropeLength, positionAt(positions, positions.length) + maxNewTokens)
  return dependsOnLength && longest > trained ? alone : ''
}

/** The steps of a request: rows of the shared batch, or a search with a loop of its own. */
const stepsOf = (
  context: RequestContext,
  inputs: GenerateInputs,
  options: GenerateOptions,
  positions: readonly number[],
  id: string
): GenerationStream => {
  const { internvl, scheduler } = context
  if ((options.numBeams ?? 1) > 1 || isAssisted(options) || isGuided(options)) {
    const { pause } = scheduler.turns.join('rotate', options.signal)
    return generate(internvl.model, inputs, { ...options, pause })
  }
  return scheduler.decode(groupKey(context, positions, options, id), inputs, prepareGeneration(inputs, options))
}

/** Puts the cache of the first answer into the prefix cache. */
const keepPrefix = ({ prefixes }: RequestContext, { content }: PromptInputs, { cache = [] }: GenerationResult): void => {
  const [first, ...others] = cache
  for (const { kv } of others) disposeCache(kv)
  if (first) prefixes.put(content, first)
}

/** `runRequest` with the logits processors of the response format. */
const runConstrained = async (
  context: RequestContext,
  id: string,
  request: EngineRequest,
  signal: AbortSignal,
  emit: (event: ProcessEvent) => void,
  constraint: readonly LogitsProcessor[]
): Promise<void> => {
  const { internvl, scheduler, prefillChunkSize, keepsPrefixes } = context
  const start = performance.now()
  const merged = requestOptions(context, request.options)
  const { messages, prompt: rendered, promptIds } = request
  const prompt = await context.prepare.prompt({ messages, prompt: rendered, promptIds }, merged, signal)
  if (!prompt) return
  const named = await makeProcessors(internvl, context.processors, request.logitsProcessors)
  const { pause } = scheduler.turns.join('first', signal)
  const decode = answerDecoder(internvl.processor, merged)
  const logitsProcessors = [...named, ...constraint]
  const given = {
    ...merged,
    ...withoutInnerOutputs,
    logitsProcessors,
    decode: internvl.processor.decode,
    signal,
    pause,
    prefillChunkSize,
    returnCache: keepsPrefixes
  }
  const prepared = performance.now()
  await pause()
  const inputs = await promptInputs(context, prompt, given)
  if (!inputs) return
  try {
    emit({ type: 'started', prompt: inputs.usage })
    const encoded = await inputs.encode()
    if (!encoded) return
    let firstToken: number | undefined
    const steps = stepsOf(context, encoded, inputs.options, inputs.content.positions, id)
    const result = await sendSteps(context, steps, { decode, stopStrings: merged.stopStrings ?? [] }, emit, () => {
      firstToken ??= performance.now()
    })
    keepPrefix(context, inputs, result)
    const end = performance.now()
    const newTokens = result.sequences.reduce((sum, tokens) => sum + tokens.length, 0)
    const seconds = {
      prepare: (prepared - start) / 1000,
      prefill: ((firstToken ?? end) - prepared) / 1000,
      decode: (end - (firstToken ?? end)) / 1000
    }
    emit({ type: 'finished', usage: { prompt: inputs.usage, encodedTiles: inputs.encodedTiles(), newTokens }, seconds })
  } finally {
    inputs.dispose()
  }
}

/**
 * Runs one request and sends its events. An abort of `signal` ends the request after at most one tile or one chunk of the prompt;
 * its answers then finish as `aborted`. Throws an `InputError` or a `RangeError` for the input.
 */
export const runRequest = async (
  context: RequestContext,
  id: string,
  request: EngineRequest,
  signal: AbortSignal,
  emit: (event: ProcessEvent) => void
): Promise<void> => {
  const { responseFormat } = requestOptions(context, request.options)
  const { processors, release } = await responseConstraint(context.internvl, responseFormat)
  try {
    await runConstrained(context, id, request, signal, emit, processors)
  } finally {
    release()
  }
}
