import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import {
  disposeCache,
  disposeForward,
  type ForwardResult,
  forwardTokens,
  type RowCache,
  rowCache,
  selectRows
} from './batch-cache.js'
import {
  abortSearch,
  type BeamSearchState,
  type Candidate,
  initialSearches,
  type ScoredToken,
  searchStep,
  toCandidate
} from './beam.js'
import { isSampling } from './generation-options.js'
import { logSoftmax } from './logits-processors.js'
import { topIndices } from './logits-warpers.js'
import { type BeamOutputs, beamOutputs } from './outputs/beam-outputs.js'
import { withInnerOutputs } from './outputs/inner-outputs.js'
import { type GenerateInputs, prefill, takePause } from './prefill.js'
import type { GenerationResult, GenerationStream, PreparedGeneration, Step } from './prepare-generation.js'
import { invalidLogits } from './sampling.js'

/** The `k` tokens with the highest scores over all beams of each search, found on the device. */
const topTokensOnDevice = async (
  logits: tf.Tensor2D,
  searches: readonly BeamSearchState[],
  k: number
): Promise<readonly ScoredToken[][]> => {
  const { values, indices } = tf.tidy(() => {
    const scores = tf.tensor2d(
      searches.flatMap(({ beams }) => beams.map(({ score }) => score)),
      [logits.shape[0], 1]
    )
    const sums = tf.logSoftmax(logits).add(scores).reshape([searches.length, -1])
    return tf.topk(sums, Math.min(k, sums.shape[1]!))
  })
  const [index, score] = await Promise.all([indices.data(), values.data()]).finally(() => tf.dispose([values, indices]))
  if (score.some(Number.isNaN)) throw invalidLogits()
  const width = index.length / searches.length
  return searches.map((_, s) =>
    Array.from({ length: width }, (_, i) => ({ index: index[s * width + i]!, score: score[s * width + i]! }))
  )
}

/**
 * `k` next tokens of one search: the best, or with sampling a sample without replacement by the Gumbel top-k trick. `rows` are
 * the logits `[V]` of its beams; `outputs` takes them and the processed log-probabilities.
 */
const topTokens = (
  rows: readonly Float32Array[],
  search: BeamSearchState,
  { options, logitsProcessor }: PreparedGeneration,
  k: number,
  outputs: BeamOutputs
): readonly ScoredToken[] => {
  const { beams, promptLength } = search
  const V = rows[0]!.length
  const sums = new Float32Array(beams.length * V)
  for (const [b, beam] of beams.entries()) {
    const logprobs = logSoftmax(rows[b]!)
    const processed = logitsProcessor ? logitsProcessor(beam.ids, logprobs, promptLength) : logprobs
    outputs.takeLogits(search, b, {
      ...(options.outputLogits ? { logits: rows[b]!.slice() } : {}),
      ...(options.outputScores ? { scores: processed } : {})
    })
    sums.set(
      processed.map((x) => x + beam.score),
      b * V
    )
  }
  const rng = search.rng.foldIn([beams[0]!.ids.length])
  const keys = isSampling(options) ? Float64Array.from(sums, (x, i) => x - Math.log(-Math.log(rng.uniform(i)))) : sums
  return topIndices(keys, k).map((index) => ({ index, score: sums[index]! }))
}

const topTokensOnHost = async (
  logits: tf.Tensor2D,
  searches: readonly BeamSearchState[],
  prepared: PreparedGeneration,
  k: number,
  outputs: BeamOutputs
) => {
  const data = (await logits.data()) as Float32Array
  const [rows, V] = logits.shape
  const n = searches[0]!.beams.length
  // one NaN in the hidden states makes all logits of its row NaN
  const isInvalid = Array.from({ length: rows }, (_, row) => data[row * V]).some(Number.isNaN)
  if (isInvalid && !prepared.options.removeInvalidValues) throw invalidLogits()
  return searches.map((search, s) => {
    const logitsOfBeams = search.beams.map((_, b) => data.subarray((s * n + b) * V, (s * n + b + 1) * V))
    return topTokens(logitsOfBeams, search, prepared, k, outputs)
  })
}

const toResult = (
  searches: readonly BeamSearchState[],
  { options: o }: PreparedGeneration,
  cache: readonly RowCache[],
  outputs: BeamOutputs
): GenerationResult => {
  const chosen = searches.flatMap(({ hypotheses, promptLength }) =>
    hypotheses
      .slice(0, o.numReturnSequences ?? 1)
      .map((hypothesis) => ({ ...hypothesis, ids: hypothesis.ids.slice(promptLength) }))
  )
  return {
    sequences: chosen.map(({ ids }) => ids),
    finishReasons: chosen.map(({ finishReason }) => finishReason ?? 'aborted'),
    scores: chosen.map(({ score }) => score),
    ...(o.outputLogprobs ? { logprobs: chosen.map(({ logprobs }) => logprobs) } : {}),
    ...outputs.result(chosen.map(({ beamIndices }) => beamIndices)),
    ...(o.returnCache && cache.length > 0 ? { cache } : {})
  }
}

/** The finished sequences as steps, one token at a time: a beam search knows its sequences only at its end. */
function* toSteps({ sequences, logprobs }: GenerationResult): Generator<Step, void> {
  const longest = Math.max(0, ...sequences.map((ids) => ids.length))
  for (let i = 0; i < longest; i++) {
    const tokens = sequences.map((ids) => ids[i])
    yield logprobs ? { tokens, logprobs: logprobs.map((row) => row[i]) } : { tokens }
  }
}

/** The candidates of each search after a forward, whose logits are disposed. */
const selectCandidates = async (
  output: ForwardResult,
  searches: readonly BeamSearchState[],
  prepared: PreparedGeneration,
  outputs: BeamOutputs
): Promise<readonly Candidate[][]> => {
  const n = searches[0]!.beams.length
  const { logitsProcessor, options: o } = prepared
  const k = Math.max(2, 1 + (o.eosTokenIds?.length ?? 0)) * n // enough candidates that n of them continue
  const rows = searches.flatMap((_, s) => Array<number>(n).fill(s))
  const isPrefill = output.logits.shape[0] < rows.length // all beams of a search share the logits of the prompt
  const logits = isPrefill ? tf.tidy(() => output.logits.gather(tf.tensor1d(rows, 'int32'))) : output.logits
  try {
    const tokens = await (logitsProcessor || isSampling(o) || o.outputLogits || o.outputScores
      ? topTokensOnHost(logits, searches, prepared, k, outputs)
      : topTokensOnDevice(logits, searches, k))
    return searches.map((search, s) => tokens[s]!.map((token) => toCandidate(search, token, logits.shape[1], prepared)))
  } finally {
    tf.dispose([logits, output.logits])
  }
}

/** Forward of the last token of every beam, with the cache rows of its parent beams; disposes the previous batch. */
const forwardBeams = (
  model: InternVL,
  { batch }: ForwardResult,
  rows: readonly number[],
  searches: readonly BeamSearchState[]
): ForwardResult => {
  const selected = selectRows(batch, rows)
  disposeCache(batch.kv)
  try {
    return forwardTokens(
      model,
      selected,
      searches.flatMap(({ beams }) => beams.map(({ ids }) => ids.at(-1)!))
    )
  } finally {
    disposeCache(selected.kv)
  }
}

/** Beam search. The search of each prompt ends by itself and then leaves the batch. Source: `_beam_search` (transformers 5.24). */
export async function* beamSearch(base: InternVL, inputs: GenerateInputs, prepared: PreparedGeneration): GenerationStream {
  const { options: o, prompts, positions } = prepared
  const model = withInnerOutputs(base, o)
  const outputs = beamOutputs(prepared)
  const searches = [...initialSearches(prepared)]
  let unfinished: readonly BeamSearchState[] = searches
  let caches: readonly RowCache[] = []
  let output: ForwardResult | undefined
  let isDelivered = false
  try {
    if (!o.signal?.aborted) output = await prefill(model, inputs, prompts, positions, o)
    if (output) outputs.takeForward(output, searches)
    const read = output?.batch
    if (read && o.returnCache) caches = prompts.map((ids, row) => rowCache(read, row, ids))
    while (output && unfinished.length > 0) {
      const candidates = await selectCandidates(output, unfinished, prepared, outputs)
      await takePause(o) // TensorFlow blocks the event loop: abort signals are delivered here
      const width = output.batch.padding.length / unfinished.length // cache rows of a search: 1 after the prefill, then numBeams
      const steps = unfinished.map((search, s) => {
        const step = searchStep(search, candidates[s]!, prepared)
        const isAborted = o.signal?.aborted && !step.search.isFinished
        const rows = step.parents.map((beam) => (width === 1 ? s : s * width + beam))
        return { search: isAborted ? abortSearch(step.search, prepared) : step.search, rows }
      })
      for (const { search } of steps) searches[search.source] = search
      const open = steps.filter(({ search }) => !search.isFinished)
      unfinished = open.map(({ search }) => search)
      const rows = open.flatMap((step) => step.rows)
      if (open.length === 0) continue
      output = forwardBeams(model, output, rows, unfinished)
      outputs.takeForward(output, unfinished)
    }
    const finished = output ? searches : searches.map((search) => abortSearch(search, prepared))
    const result = toResult(finished, prepared, caches, outputs)
    yield* toSteps(result)
    isDelivered = true
    return result
  } finally {
    if (output) disposeForward(output)
    if (!isDelivered) {
      outputs.dispose()
      for (const { kv } of caches) disposeCache(kv)
    }
  }
}
