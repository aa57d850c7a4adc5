import { reserveCapacity } from '../../lib/nn/attention/kv-cache.js'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import {
  type Batch,
  disposeCache,
  disposeForward,
  type ForwardResult,
  forwardTokens,
  type RowCache,
  rowCache,
  selectRows
} from './batch-cache.js'
import { type GenerateOptions, returnsLogprobs } from './generation-options.js'
import { type InnerOutputsByToken, innerOutputCollector, innerOutputs, withInnerOutputs } from './outputs/inner-outputs.js'
import { type GenerateInputs, prefill, takePause } from './prefill.js'
import type { GenerationResult, GenerationStream, PreparedGeneration, Step } from './prepare-generation.js'
import { type Guidance, guidanceFrom, isGuided, negativePrompts, paddedPrompts } from './prompts/guidance.js'
import { rngOf } from './sampling.js'
import { type SelectedToken, type SequenceState, tokenSelector } from './selection/token-selector.js'
import type { FinishRule } from './stopping.js'

/** `numReturnSequences` rows for each prompt, each with a random generator of its own. */
export const initialRows = ({ options: o, prompts, seeds }: PreparedGeneration): readonly SequenceState[] =>
  prompts.flatMap((ids, source) =>
    Array.from({ length: o.numReturnSequences ?? 1 }, (_, sequence) => ({
      source,
      promptLength: ids.length,
      ids: [...ids],
      logprobs: [],
      stepLogits: [],
      stepScores: [],
      rng: rngOf(seeds[source]!, sequence).foldIn(ids)
    }))
  )

/** Prefill of the prompts, each repeated for its `numReturnSequences` rows; undefined after an abort. */
export const prefillRows = async (
  model: InternVL,
  inputs: GenerateInputs,
  { options: o, prompts, positions }: PreparedGeneration,
  rows: readonly SequenceState[]
): Promise<ForwardResult | undefined> => {
  const output = await prefill(model, inputs, prompts, positions, o)
  if (!output || rows.length === prompts.length) return output
  const sources = rows.map((row) => row.source)
  const logits = tf.tidy(() => output.logits.gather(tf.tensor1d(sources, 'int32')))
  const batch = selectRows(output.batch, sources)
  output.logits.dispose()
  disposeCache(output.batch.kv)
  return { logits, batch, ...innerOutputs(output) }
}

export const appendToken = (row: SequenceState, selected: SelectedToken, finishReasonOf: FinishRule): void => {
  const { token, logprob, logits, scores } = selected
  row.ids.push(token)
  if (logprob !== undefined) row.logprobs.push(logprob)
  if (logits) row.stepLogits.push(logits)
  if (scores) row.stepScores.push(scores)
  row.rng = row.rng.foldIn([token])
  const finishReason = finishReasonOf(row.ids, row.promptLength)
  if (finishReason) row.finishReason = finishReason
}

export const toStep = (
  rows: readonly SequenceState[],
  unfinished: readonly SequenceState[],
  selected: readonly SelectedToken[],
  o: GenerateOptions
): Step => {
  const byRow = rows.map((row) => selected[unfinished.indexOf(row)])
  const tokens = byRow.map((choice) => choice?.token)
  if (!returnsLogprobs(o)) return { tokens }
  const step = { tokens, logprobs: byRow.map((choice) => choice?.logprob) }
  return o.topLogprobs ? { ...step, topLogprobs: byRow.map((choice) => choice?.topLogprobs) } : step
}

export const toResult = (
  rows: readonly SequenceState[],
  o: GenerateOptions,
  caches: ReadonlyMap<SequenceState, RowCache>,
  inner: InnerOutputsByToken = {}
): GenerationResult => ({
  sequences: rows.map((row) => row.ids.slice(row.promptLength)),
  finishReasons: rows.map((row) => row.finishReason ?? 'aborted'),
  ...(returnsLogprobs(o) ? { logprobs: rows.map((row) => row.logprobs) } : {}),
  ...(o.outputLogits ? { stepLogits: rows.map((row) => row.stepLogits) } : {}),
  ...(o.outputScores ? { stepScores: rows.map((row) => row.stepScores) } : {}),
  ...inner,
  ...(o.returnCache && caches.size === rows.length ? { cache: rows.map((row) => caches.get(row)!) } : {})
})

/** The rows of a batch that continue; disposes the batch if rows are dropped. */
const keepRows = (batch: Batch, rows: readonly number[]): Batch => {
  if (rows.length === batch.padding.length) return batch
  const selected = selectRows(batch, rows)
  disposeCache(batch.kv)
  return selected
}

/** Forward of each row's last token; disposes the previous batch. */
const forwardLastTokens = (model: InternVL, batch: Batch, rows: readonly SequenceState[]): ForwardResult => {
  try {
    return forwardTokens(
      model,
      batch,
      rows.map((row) => row.ids.at(-1)!)
    )
  } finally {
    disposeCache(batch.kv)
  }
}

/** The generation of the negative prompts beside `prepared`: text alone, without a given cache. */
const negativeGeneration = (prepared: PreparedGeneration): PreparedGeneration => {
  const prompts = negativePrompts(prepared.options, prepared.prompts)
  const { cache: _, visualDelta: __, ...options } = prepared.options
  return { ...prepared, options, prompts, positions: prompts.map((ids) => [...ids.keys()]) }
}

/** The side of the negative prompts; undefined after an abort. */
const startGuidance = async (
  model: InternVL,
  prepared: PreparedGeneration,
  rows: readonly SequenceState[]
): Promise<Guidance | undefined> => {
  const negative = negativeGeneration(prepared)
  const inputs = paddedPrompts(negative.prompts)
  const start = await prefillRows(model, inputs, negative, rows).finally(() =>
    tf.dispose([inputs.inputIds, inputs.attentionMask])
  )
  return start && guidanceFrom(model, start, prepared.options.guidanceScale!)
}

/** Reserves memory for the whole answer where the options ask for a static cache. */
const withCapacity = (output: ForwardResult, { cacheImplementation }: GenerateOptions, maxNewTokens: number): ForwardResult => {
  if (cacheImplementation !== 'static') return output
  const { kv } = output.batch
  const reserved = kv.map((cache) => reserveCapacity(cache, cache.length + maxNewTokens))
  disposeCache(kv)
  return { ...output, batch: { ...output.batch, kv: reserved } }
}

/** Greedy search or sampling, every row independent of the others; rows that have finished leave the batch. */
export async function* samplingLoop(base: InternVL, inputs: GenerateInputs, prepared: PreparedGeneration): GenerationStream {
  const { options: o, finishReason } = prepared
  const model = withInnerOutputs(base, o)
  const collector = innerOutputCollector(o)
  const rows = initialRows(prepared)
  const caches = new Map<SequenceState, RowCache>()
  let unfinished = rows
  let output: ForwardResult | undefined
  let guidance: Guidance | undefined
  let result: GenerationResult | undefined
  try {
    if (!o.signal?.aborted) output = await prefillRows(model, inputs, prepared, rows)
    if (output)
      collector.take(
        output,
        rows.map(({ source }) => source)
      )
    if (output) output = withCapacity(output, o, prepared.maxNewTokens)
    if (output && isGuided(o)) {
      guidance = await startGuidance(base, prepared, rows)
      if (!guidance) unfinished = [] // aborted
    }
    while (output && unfinished.length > 0) {
      const select = await tokenSelector(output.logits, [prepared], {
        guided: guidance?.guide(output.logits),
        rows: unfinished
      })
      const selected = unfinished.map(select)
      for (const [i, row] of unfinished.entries()) appendToken(row, selected[i]!, finishReason)
      await takePause(o) // TensorFlow blocks the event loop: abort signals and streams are served here
      yield toStep(rows, unfinished, selected, o)
      if (o.signal?.aborted) for (const row of unfinished) row.finishReason ??= 'aborted'
      const { batch } = output
      if (o.returnCache)
        for (const [i, row] of unfinished.entries()) if (row.finishReason) caches.set(row, rowCache(batch, i, row.ids))
      const open = unfinished.flatMap((row, i) => (row.finishReason ? [] : [i]))
      unfinished = open.map((i) => unfinished[i]!)
      if (open.length === 0) continue
      output = forwardLastTokens(model, keepRows(batch, open), unfinished)
      collector.take(
        output,
        rows.map((row) => unfinished.indexOf(row))
      )
      guidance?.advance(open, (m, negative) => forwardLastTokens(m, negative, unfinished), keepRows)
    }
    result = toResult(rows, o, caches, collector.result())
    return result
  } finally {
    if (output) disposeForward(output)
    guidance?.dispose()
    if (!result) {
      collector.dispose()
      for (const { kv } of caches.values()) disposeCache(kv)
    }
  }
}
