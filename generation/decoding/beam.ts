import type { Plan } from './generation-plan.js'
import { topIndices } from './logits-warpers.js'
import { type Chance, chance } from './sampling.js'
import type { FinishReason } from './stopping.js'

/** A sequence under way: prompt and answer, the log-probability of each token made, and their sum in float32. */
export interface Beam {
  readonly ids: readonly number[]
  readonly logprobs: readonly number[]
  readonly score: number
}

/** A way to go on: from which beam, and why it would end there. */
export interface Candidate extends Beam {
  readonly from: number
  readonly finish: FinishReason | undefined
}

/** An answer, its score divided by the length penalty; without `finish` it is only a place for one. */
interface Answer extends Beam {
  readonly finish: FinishReason | undefined
}

/** The search for one prompt's answers. A value: a step makes a new one. */
export interface Search {
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
    Float64Array.from(list, ({ score }) => score),
    n
  ).map((i) => list[i]!)

/** A search for each prompt, before its first token. */
export const newSearches = ({ options: o, prompts, seeds }: Plan): readonly Search[] => {
  const n = o.numBeams ?? 1
  return prompts.map((ids, source) => {
    const places = Array.from({ length: n }, () => ({ ids, logprobs: [], score: hopeless, finish: undefined }))
    const beams = places.map((beam, i) => (i === 0 ? { ...beam, score: 0 } : beam)) // else all would begin alike
    const own = chance(seeds[source]!).after(ids)
    return { source, promptLength: ids.length, chance: own, beams, answers: places, hopeful: true, over: false }
  })
}

/** A token of a beam by its place in `[beams · V]`, and the sum of log-probabilities with it. */
export interface Pick {
  readonly at: number
  readonly score: number
}

/** The sequence that a pick stands for, V being the size of the vocabulary. */
export const candidateOf = ({ beams, promptLength }: Search, { at, score }: Pick, V: number, { stop }: Plan): Candidate => {
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
export const stepped = (
  search: Search,
  candidates: readonly Candidate[],
  plan: Plan
): { search: Search; from: readonly number[] } => {
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
export const stopped = (search: Search, { options: { lengthPenalty: penalty = 1 } }: Plan): Search => {
  const asAnswer = (beam: Beam): Answer => {
    const made = Math.max(1, beam.ids.length - search.promptLength)
    return { ids: beam.ids, logprobs: beam.logprobs, score: beam.score / made ** penalty, finish: 'aborted' }
  }
  const answers = best([...search.answers.filter(({ finish }) => finish), ...search.beams.map(asAnswer)], search.beams.length)
  return { ...search, answers, over: true }
}
