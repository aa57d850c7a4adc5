import { setImmediate as breathe } from 'node:timers/promises'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { advance, disposeCache, type Forward, type RowCache, rowCache, selectRows } from './batch-cache.js'
import { type Candidate, candidateOf, newSearches, type Pick, type Search, stepped, stopped } from './beam.js'
import { isSampling } from './generation-options.js'
import type { Generation, GenerationResult, Plan, Step } from './generation-plan.js'
import { logSoftmax } from './logits-processors.js'
import { topIndices } from './logits-warpers.js'
import { type GenerateInputs, prefill } from './prefill.js'

/** The `k` best of all beams' tokens for each search, on the device. */
const picksOnDevice = async (logits: tf.Tensor2D, searches: readonly Search[], k: number): Promise<readonly Pick[][]> => {
  const { values, indices } = tf.tidy(() => {
    const scores = tf.tensor2d(
      searches.flatMap(({ beams }) => beams.map(({ score }) => score)),
      [logits.shape[0], 1]
    )
    const sums = tf.logSoftmax(logits).add(scores).reshape([searches.length, -1])
    return tf.topk(sums, Math.min(k, sums.shape[1]!))
  })
  const [at, score] = await Promise.all([indices.data(), values.data()]).finally(() => tf.dispose([values, indices]))
  const width = at.length / searches.length
  return searches.map((_, s) =>
    Array.from({ length: width }, (_, i) => ({ at: at[s * width + i]!, score: score[s * width + i]! }))
  )
}

/** The `k` best, or drawn ones, of one search: `rows` are its beams' logits. Drawn without replacement, by Gumbel's trick. */
const picksOf = (rows: readonly Float32Array[], search: Search, { options, process }: Plan, k: number): readonly Pick[] => {
  const { beams, promptLength } = search
  const V = rows[0]!.length
  const sums = new Float32Array(beams.length * V)
  for (const [b, beam] of beams.entries()) {
    const logprobs = logSoftmax(rows[b]!)
    const processed = process ? process(beam.ids, logprobs, promptLength) : logprobs
    sums.set(
      processed.map((x) => x + beam.score),
      b * V
    )
  }
  const place = search.chance.after([beams[0]!.ids.length])
  const key = isSampling(options) ? Float64Array.from(sums, (x, i) => x - Math.log(-Math.log(place.uniform(i)))) : sums
  return topIndices(key, k).map((at) => ({ at, score: sums[at]! }))
}

const picksOnHost = async (logits: tf.Tensor2D, searches: readonly Search[], plan: Plan, k: number) => {
  const data = (await logits.data()) as Float32Array
  const [V, n] = [logits.shape[1], searches[0]!.beams.length]
  return searches.map((search, s) => {
    const rows = search.beams.map((_, b) => data.subarray((s * n + b) * V, (s * n + b + 1) * V))
    return picksOf(rows, search, plan, k)
  })
}

const resultOf = (searches: readonly Search[], { options: o }: Plan, cache: readonly RowCache[]): GenerationResult => {
  const chosen = searches.flatMap((search) => {
    const answers = search.answers.slice(0, o.numReturnSequences ?? 1)
    return answers.map((answer) => ({ ...answer, ids: answer.ids.slice(search.promptLength) }))
  })
  return {
    sequences: chosen.map(({ ids }) => ids),
    finishReasons: chosen.map(({ finish }) => finish ?? 'aborted'),
    scores: chosen.map(({ score }) => score),
    ...(o.outputLogprobs ? { logprobs: chosen.map(({ logprobs }) => logprobs) } : {}),
    ...(o.returnCache && cache.length > 0 ? { cache } : {})
  }
}

/** The answers token by token, as if they had been made so: only at its end does a search know them. */
function* replay({ sequences, logprobs }: GenerationResult): Generator<Step, void> {
  const longest = Math.max(0, ...sequences.map((ids) => ids.length))
  for (let i = 0; i < longest; i++) {
    const tokens = sequences.map((ids) => ids[i])
    yield logprobs ? { tokens, logprobs: logprobs.map((row) => row[i]) } : { tokens }
  }
}

/** The candidates of each search after a forward, whose logits it disposes. */
const candidatesOf = async (now: Forward, searches: readonly Search[], plan: Plan): Promise<readonly Candidate[][]> => {
  const n = searches[0]!.beams.length
  const { process, options: o } = plan
  const kept = Math.max(2, 1 + (o.eosTokenIds?.length ?? 0)) * n // enough that n of them go on
  const rows = searches.flatMap((_, s) => Array<number>(n).fill(s))
  const shared = now.logits.shape[0] < rows.length // after the prompt, all beams of a search
  const logits = shared ? tf.tidy(() => now.logits.gather(tf.tensor1d(rows, 'int32'))) : now.logits
  try {
    const picks = await (process || isSampling(o)
      ? picksOnHost(logits, searches, plan, kept)
      : picksOnDevice(logits, searches, kept))
    return searches.map((search, s) => picks[s]!.map((pick) => candidateOf(search, pick, logits.shape[1], plan)))
  } finally {
    tf.dispose([logits, now.logits])
  }
}

/** The forward of each beam's last token, with the cache rows of the beams that they came `from`; disposes what was before. */
const follow = (model: InternVL, { batch }: Forward, rows: readonly number[], searches: readonly Search[]): Forward => {
  const chosen = selectRows(batch, rows)
  disposeCache(batch.kv)
  try {
    return advance(
      model,
      chosen,
      searches.flatMap(({ beams }) => beams.map(({ ids }) => ids.at(-1)!))
    )
  } finally {
    disposeCache(chosen.kv)
  }
}

/** Beam search. Each prompt's search ends by itself, and then leaves the batch. Source: `_beam_search` (transformers 5.23). */
export async function* beamSearch(model: InternVL, inputs: GenerateInputs, plan: Plan): Generation {
  const { options: o, prompts, positions } = plan
  const done = [...newSearches(plan)]
  let running: readonly Search[] = done
  let caches: readonly RowCache[] = []
  let now: Forward | undefined
  let delivered = false
  try {
    if (!o.signal?.aborted) now = prefill(model, inputs, prompts, positions, o)
    const read = now?.batch
    if (read && o.returnCache) caches = prompts.map((ids, row) => rowCache(read, row, ids))
    while (now && running.length > 0) {
      const candidates = await candidatesOf(now, running, plan)
      await breathe() // TensorFlow blocks the event loop: signals get their turn here
      const width = now.batch.padding.length / running.length // after the prompt, all beams of a search share one row
      const steps = running.map((search, s) => ({ ...stepped(search, candidates[s]!, plan), s }))
      const cut = (search: Search) => (o.signal?.aborted && !search.over ? stopped(search, plan) : search)
      const after = steps.map((step) => ({ ...step, search: cut(step.search) }))
      for (const { search } of after) done[search.source] = search
      const open = after.filter(({ search }) => !search.over)
      running = open.map(({ search }) => search)
      const rows = open.flatMap(({ s, from }) => from.map((beam) => (width === 1 ? s : s * width + beam)))
      if (open.length > 0) now = follow(model, now, rows, running)
    }
    const result = resultOf(now ? done : done.map((search) => stopped(search, plan)), plan, caches)
    yield* replay(result)
    delivered = true
    return result
  } finally {
    if (now) disposeCache(now.batch.kv)
    if (!delivered) for (const { kv } of caches) disposeCache(kv)
  }
}
