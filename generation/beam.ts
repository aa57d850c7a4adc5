import { setImmediate as breathe } from 'node:timers/promises'
import { tf } from '../lib/tf.js'
import type { InternVL } from '../models/internvl.js'
import {
  advance,
  disposeCache,
  type Forward,
  type GenerateInputs,
  prefill,
  type RowCache,
  rowCache,
  selectRows
} from './cache.js'
import { logSoftmax } from './logits.js'
import { isSampling } from './options.js'
import type { Generation, GenerationResult, Plan, Step } from './plan.js'
import { type Chance, chance } from './sampler.js'
import type { FinishReason } from './stop.js'
import { topIndices } from './warpers.js'

/** A sequence under way: prompt and answer, the log-probability of each token made, and their sum in float32. */
interface Beam {
  readonly ids: readonly number[]
  readonly logprobs: readonly number[]
  readonly score: number
}

/** A way to go on: from which beam, and why it would end there. */
interface Candidate extends Beam {
  readonly from: number
  readonly finish: FinishReason | undefined
}

/** An answer, its score divided by the length penalty; without `finish` it is only a place for one. */
interface Answer extends Beam {
  readonly finish: FinishReason | undefined
}

/** The search for one prompt's answers. A value: a step makes a new one. */
interface Search {
  readonly source: number
  readonly promptLength: number
  readonly chance: Chance
  readonly beams: readonly Beam[]
  readonly answers: readonly Answer[]
  /** Whether a beam may still become better than the answers. */
  readonly hopeful: boolean
  readonly over: boolean
}

/** Far below any real score, yet finite. Source: `_beam_search` (transformers 5.23), whose float32 sums are kept too. */
const hopeless = -1e9
const add = (a: number, b: number): number => Math.fround(a + b)
const best = <A extends Beam>(list: readonly A[], n: number): readonly A[] =>
  topIndices(
    list.map((beam) => beam.score),
    n
  ).map((i) => list[i]!)

const newSearches = ({ options: o, prompts }: Plan): readonly Search[] => {
  const n = o.numBeams ?? 1
  const seed = o.seed ?? Math.floor(Math.random() * 2 ** 53)
  return prompts.map((ids, source) => {
    const places = Array.from({ length: n }, () => ({ ids, logprobs: [], score: hopeless, finish: undefined }))
    const beams = places.map((beam, i) => (i === 0 ? { ...beam, score: 0 } : beam)) // else all would begin alike
    const own = chance(typeof seed === 'number' ? seed : seed[source]!).after(ids)
    return { source, promptLength: ids.length, chance: own, beams, answers: places, hopeful: true, over: false }
  })
}

/** A token of a beam by its place in `[beams · V]`, and the sum of log-probabilities with it. */
interface Pick {
  readonly at: number
  readonly score: number
}

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

const candidateOf = ({ beams, promptLength }: Search, { at, score }: Pick, V: number, { stop }: Plan): Candidate => {
  const from = Math.floor(at / V)
  const beam = beams[from]!
  const ids = [...beam.ids, at % V]
  return { ids, logprobs: [...beam.logprobs, score - beam.score], score, from, finish: stop(ids, promptLength) }
}

/** What can still be hoped for. Source: `_check_early_stop_heuristic`. */
const isHopeful = (search: Search, { options: o, allowed }: Plan): boolean => {
  const penalty = o.lengthPenalty ?? 1
  const made = search.beams[0]!.ids.length - search.promptLength
  const length = o.earlyStopping === 'never' && penalty > 0 ? allowed : made
  const possible = Math.fround(search.beams[0]!.score / Math.fround(length ** penalty))
  const worst = Math.min(...search.answers.map(({ score }) => score))
  return search.hopeful && search.answers.some(({ finish }) => possible > (finish ? worst : hopeless))
}

/** One step of a search, from its candidates, best first. Source: `_beam_search` (transformers 5.23), for one row of the batch. */
const stepped = (search: Search, candidates: readonly Candidate[], plan: Plan): { search: Search; from: readonly number[] } => {
  const { lengthPenalty: penalty = 1, earlyStopping = false } = plan.options
  const n = search.beams.length
  const full = earlyStopping === true && search.answers.every(({ finish }) => finish)
  const open = candidates.map((c) => (c.finish ? { ...c, score: add(c.score, hopeless) } : c))
  const beams = best(open, n)
  const divisor = Math.fround((candidates[0]!.ids.length - search.promptLength) ** penalty)
  // only the best n may become answers; the rest are there so that n beams go on
  const ended = candidates.map((c, i): Answer => {
    const bars = [full, !search.hopeful, !(c.finish && i < n)]
    const score = bars.reduce((sum, bar) => (bar ? add(sum, hopeless) : sum), Math.fround(c.score / divisor))
    return { ids: c.ids, logprobs: c.logprobs, score, finish: i < n ? c.finish : undefined }
  })
  const next: Search = { ...search, beams, answers: best([...search.answers, ...ended], n) }
  const hopeful = isHopeful(next, plan)
  const complete = earlyStopping === true && next.answers.every(({ finish }) => finish)
  const over = !hopeful || complete || candidates.every(({ finish }) => finish)
  return { search: { ...next, hopeful, over }, from: beams.map((beam) => beam.from) }
}

/** A search that is stopped: its beams are answers too, as they stand. */
const stopped = (search: Search, { options: { lengthPenalty: penalty = 1 } }: Plan): Search => {
  const asAnswer = (beam: Beam): Answer => {
    const made = Math.max(1, beam.ids.length - search.promptLength)
    return { ids: beam.ids, logprobs: beam.logprobs, score: beam.score / made ** penalty, finish: 'aborted' }
  }
  const answers = best([...search.answers.filter(({ finish }) => finish), ...search.beams.map(asAnswer)], search.beams.length)
  return { ...search, answers, over: true }
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
  const copies = (n * searches.length) / now.logits.shape[0]
  const rows = searches.flatMap((_, s) => Array.from({ length: n }, (_, b) => (copies === 1 ? s * n + b : s)))
  const logits = copies === 1 ? now.logits : tf.tidy(() => now.logits.gather(tf.tensor1d(rows, 'int32')))
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
  const { options: o, prompts } = plan
  const done = [...newSearches(plan)]
  let running: readonly Search[] = done
  let caches: readonly RowCache[] = []
  let now: Forward | undefined
  let delivered = false
  try {
    if (!o.signal?.aborted) now = prefill(model, inputs, prompts, o.cache, o.imageTokenId)
    const read = now?.batch
    if (read && o.returnCache) caches = prompts.map((ids, row) => rowCache(read, row, ids))
    while (now && running.length > 0) {
      const candidates = await candidatesOf(now, running, plan)
      await breathe() // TensorFlow blocks the event loop: signals get their turn here
      const copies = now.batch.padding.length / running.length // after the prompt, all beams share one row
      const steps = running.map((search, s) => ({ ...stepped(search, candidates[s]!, plan), s }))
      const after = steps.map((step) => (o.signal?.aborted ? { ...step, search: stopped(step.search, plan) } : step))
      for (const { search } of after) done[search.source] = search
      const open = after.filter(({ search }) => !search.over)
      running = open.map(({ search }) => search)
      const rows = open.flatMap(({ s, from }) => from.map((beam) => (copies === 1 ? s : s * copies + beam)))
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
