import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { cropBatch, disposeCache, disposeForward, type ForwardResult, forwardSequence, rowCache } from './batch-cache.js'
import type { AssistantModel } from './generation-options.js'
import { innerOutputCollector, withInnerOutputs } from './outputs/inner-outputs.js'
import { type GenerateInputs, prefill, takePause } from './prefill.js'
import type { GenerationResult, GenerationStream, PreparedGeneration } from './prepare-generation.js'
import { appendToken, initialRows, toResult, toStep } from './sampling-loop.js'
import { tokenSelector } from './selection/token-selector.js'

/**
 * Proposes at most `count` tokens that may follow `ids`, which are prompt and answer; none without a good guess. `dispose` frees
 * the tensors of the generator.
 */
export interface CandidateGenerator {
  readonly propose: (ids: readonly number[], count: number) => readonly number[] | Promise<readonly number[]>
  readonly dispose: () => void
}

const equalAt = (ids: readonly number[], start: number, ngram: readonly number[]): boolean =>
  ngram.every((id, i) => ids[start + i] === id)

/**
 * Prompt-lookup decoding: the last n-gram of `ids` is searched in `ids`, n from `maxMatchingNgramSize` down to 1, and the tokens after
 * its first earlier occurrence are proposed. Source: `PromptLookupCandidateGenerator` (transformers 5.24).
 */
export const promptLookup = (ids: readonly number[], count: number, maxMatchingNgramSize = 2): readonly number[] => {
  for (let size = Math.min(maxMatchingNgramSize, ids.length - 1); size > 0; size--) {
    const ngram = ids.slice(-size)
    for (let start = 0; start + size < ids.length; start++)
      if (equalAt(ids, start, ngram)) return ids.slice(start + size, start + size + count)
  }
  return []
}

const commonPrefix = (a: readonly number[], b: readonly number[]): number => {
  const differs = a.findIndex((id, i) => id !== b[i])
  return differs < 0 ? Math.min(a.length, b.length) : differs
}

/** The most probable token of logits `[1, V]`, which are disposed, and its probability. */
const mostProbable = async (logits: tf.Tensor2D): Promise<{ readonly token: number; readonly probability: number }> => {
  const [token, probability] = tf.tidy(() => [logits.argMax(-1), logits.softmax().max()])
  try {
    const [[id], [p]] = await Promise.all([token!.data(), probability!.data()])
    return { token: id!, probability: p! }
  } finally {
    tf.dispose([logits, token!, probability!])
  }
}

/**
 * Candidates by greedy search of a smaller model with the same vocabulary, which reads the same prompt and images. It stops before a token whose
 * probability is below `assistantConfidenceThreshold`. Source: `AssistedCandidateGenerator` (transformers 5.24).
 */
const draftModel = (
  { model }: AssistantModel,
  vocabSize: number,
  inputs: GenerateInputs,
  { options: o, prompts, positions }: PreparedGeneration
): CandidateGenerator => {
  let output: ForwardResult | undefined
  let cached: readonly number[] = []
  const advance = async (ids: readonly number[]): Promise<ForwardResult> => {
    const previous = output
    const next = previous
      ? forwardSequence(model, previous.batch, ids, 1)
      : (await prefill(model, inputs, prompts, positions, {
          imageTokenId: o.imageTokenId,
          ropeLength: o.ropeLength,
          kvCache: o.kvCache
        }))!
    if (previous) disposeCache(previous.batch.kv)
    output = next
    return next
  }
  const begin = async (): Promise<void> => {
    const { logits } = await advance([])
    const drafted = logits.shape[1]
    logits.dispose()
    cached = prompts[0]!
    if (drafted !== vocabSize)
      throw new RangeError(
        `assistantModel: expected a vocabulary of ${vocabSize} tokens as the model's, got ${drafted}; take a smaller model of the same family`
      )
  }
  return {
    propose: async (ids, count) => {
      if (!output) await begin()
      const shared = Math.min(commonPrefix(cached, ids), ids.length - 1)
      output = { ...output!, batch: cropBatch(output!.batch, shared) }
      cached = ids.slice(0, shared)
      const candidates: number[] = []
      for (let fresh = ids.slice(shared); candidates.length < count; fresh = candidates.slice(-1)) {
        const { logits } = await advance(fresh)
        cached = [...cached, ...fresh]
        const { token, probability } = await mostProbable(logits)
        if (probability < (o.assistantConfidenceThreshold ?? 0.4)) break
        candidates.push(token)
      }
      return candidates
    },
    dispose: () => {
      if (output) disposeCache(output.batch.kv)
    }
  }
}

/**
 * The number of candidates to request. A rejected candidate costs a row of a forward, so the number follows the accepted ones: it doubles
 * after a step that accepts all, and shrinks to one more than were accepted otherwise. After steps without an accepted candidate, the
 * next 1, 2, 4, … up to 32 steps run without candidates.
 */
const candidateSchedule = (most: number) => {
  let [count, failures, pause] = [Math.min(most, 4), 0, 0]
  return {
    next: (): number => (pause > 0 ? 0 : count),
    update: (proposed: number, accepted: number): void => {
      if (proposed === 0) pause = Math.max(0, pause - 1)
      else if (accepted === 0) [count, failures, pause] = [Math.min(most, 2), failures + 1, Math.min(32, 2 ** failures)]
      else [count, failures] = [Math.min(most, accepted === proposed ? count * 2 : accepted + 1), 0]
    }
  }
}

const upTo = (ids: readonly number[], end: number | undefined): readonly number[] => {
  const index = end === undefined ? -1 : ids.indexOf(end)
  return index < 0 ? ids : ids.slice(0, index)
}

/** Most candidates of a step: more rows than this would leave the kernels that read the weights once for a few rows. */
const MOST_CANDIDATES = 23

/**
 * Greedy search or sampling of one row in which a forward checks several candidate tokens at once. Every token is selected from the
 * model's own logits as in `samplingLoop`, and the candidates after the first that differs are dropped: the tokens are those of
 * unassisted decoding, and sampling stays unbiased. Source: `_assisted_decoding` (transformers 5.24); Leviathan et al. 2023.
 */
export async function* assistedLoop(base: InternVL, inputs: GenerateInputs, prepared: PreparedGeneration): GenerationStream {
  const { options: o, prompts, positions, finishReason, maxNewTokens } = prepared
  const model = withInnerOutputs(base, o)
  const collector = innerOutputCollector(o)
  const rows = initialRows(prepared)
  const row = rows[0]!
  const schedule = candidateSchedule(Math.min(MOST_CANDIDATES, o.promptLookupNumTokens ?? o.numAssistantTokens ?? 20))
  let [output, generator, result]: [ForwardResult?, CandidateGenerator?, GenerationResult?] = []
  let candidates: readonly number[] = []
  try {
    if (!o.signal?.aborted) output = await prefill(model, inputs, prompts, positions, o)
    while (output && !row.finishReason) {
      generator ??= o.assistantModel
        ? draftModel(o.assistantModel, output.logits.shape[1], inputs, prepared)
        : { propose: (ids, count) => promptLookup(ids, count, o.maxMatchingNgramSize), dispose: () => undefined }
      const cachedLength = row.ids.length
      const select = await tokenSelector(output.logits, [prepared])
      let accepted = 0
      while (!row.finishReason) {
        const selected = select(row, accepted)
        appendToken(row, selected, finishReason)
        await takePause(o) // TensorFlow blocks the event loop: abort signals and streams are served here
        yield toStep(rows, rows, [selected], o)
        if (o.signal?.aborted) row.finishReason ??= 'aborted'
        if (accepted === candidates.length || selected.token !== candidates[accepted]) break
        accepted++
      }
      collector.take(output, [0], row.ids.length - cachedLength, candidates.length)
      output = { logits: output.logits, batch: cropBatch(output.batch, cachedLength + accepted) }
      schedule.update(candidates.length, accepted)
      if (row.finishReason) break
      const remaining = row.promptLength + maxNewTokens - row.ids.length - 1
      const count = Math.min(schedule.next(), remaining)
      candidates = count > 0 ? upTo(await generator.propose(row.ids, count), o.imageTokenId) : []
      const { batch } = output
      const tokens = [row.ids.at(-1)!, ...candidates]
      output = forwardSequence(model, batch, tokens, tokens.length)
      disposeCache(batch.kv)
    }
    const caches = new Map(o.returnCache && output ? [[row, rowCache(output.batch, 0, row.ids)]] : [])
    result = toResult(rows, o, caches, collector.result())
    return result
  } finally {
    if (output) disposeForward(output)
    generator?.dispose()
    if (!result) collector.dispose()
  }
}
