import { topIndices } from './logits-warpers.js'
import type { PreparedGeneration } from './prepare-generation.js'
import { type RandomGenerator, rngOf } from './sampling.js'
import type { FinishReason } from './stopping.js'

/**
 * A partial sequence: token ids of prompt and answer, the log-probability of each new token, their sum in float32, and the beam that each
 * new token extends, counted over the beams of all prompts.
 */
export interface Beam {
  readonly ids: readonly number[]
  readonly logprobs: readonly number[]
  readonly beamIndices: readonly number[]
  readonly score: number
}

/** A beam extended by one token: the index of its parent beam, and the reason why the sequence finishes, if it does. */
export interface Candidate extends Beam {
  readonly parent: number
  readonly finishReason: FinishReason | undefined
}

/** A finished sequence with its score divided by the length penalty; an empty slot has no `finishReason`. */
interface Hypothesis extends Beam {
  readonly finishReason: FinishReason | undefined
}

/** State of the beam search of one prompt. Immutable: every step returns a new state. */
export interface BeamSearchState {
  /** Index of the prompt in the batch. */
  readonly source: number
  readonly promptLength: number
  readonly rng: RandomGenerator
  readonly beams: readonly Beam[]
  readonly hypotheses: readonly Hypothesis[]
  /** Whether a beam may still become better than the worst hypothesis. */
  readonly canImprove: boolean
  readonly isFinished: boolean
}

/** Far below any real score, yet finite. Source: `_beam_search` (transformers 5.24), whose float32 sums are reproduced too. */
const impossible = -1e9
const addFloat32 = (a: number, b: number): number => Math.fround(a + b)
const topBeams = <A extends Beam>(list: readonly A[], n: number): readonly A[] =>
  topIndices(
    Float64Array.from(list, ({ score }) => score),
    n
  ).map((i) => list[i]!)

/** The search state of each prompt before its first token. */
export const initialSearches = ({ options: o, prompts, seeds }: PreparedGeneration): readonly BeamSearchState[] => {
  const n = o.numBeams ?? 1
  return prompts.map((ids, source) => {
    const slots = Array.from({ length: n }, () => ({
      ids,
      logprobs: [],
      beamIndices: [],
      score: impossible,
      finishReason: undefined
    }))
    const beams = slots.map((beam, i) => (i === 0 ? { ...beam, score: 0 } : beam)) // else all beams would begin with the same token
    const rng = rngOf(seeds[source]!).foldIn(ids)
    return { source, promptLength: ids.length, rng, beams, hypotheses: slots, canImprove: true, isFinished: false }
  })
}

/** A next token of one beam: its index in `[beams · V]`, and the sum of log-probabilities up to this token. */
export interface ScoredToken {
  readonly index: number
  readonly score: number
}

/** The sequence that a scored token leads to; V is the size of the vocabulary. */
export const toCandidate = (
  { source, beams, promptLength }: BeamSearchState,
  { index, score }: ScoredToken,
  V: number,
  { finishReason }: PreparedGeneration
): Candidate => {
  const parent = Math.floor(index / V)
  const beam = beams[parent]!
  const ids = [...beam.ids, index % V]
  const logprobs = [...beam.logprobs, score - beam.score]
  const beamIndices = [...beam.beamIndices, source * beams.length + parent]
  return { ids, logprobs, beamIndices, score, parent, finishReason: finishReason(ids, promptLength) }
}

/** Whether the best score that a beam can reach exceeds the worst hypothesis. Source: `_check_early_stop_heuristic`. */
const canStillImprove = (search: BeamSearchState, { options: o, maxNewTokens }: PreparedGeneration): boolean => {
  const penalty = o.lengthPenalty ?? 1
  const newTokens = search.beams[0]!.ids.length - search.promptLength
  const length = o.earlyStopping === 'never' && penalty > 0 ? maxNewTokens : newTokens
  const reachable = Math.fround(search.beams[0]!.score / Math.fround(length ** penalty))
  const worst = Math.min(...search.hypotheses.map(({ score }) => score))
  return search.canImprove && search.hypotheses.some(({ finishReason }) => reachable > (finishReason ? worst : impossible))
}

/** The candidates of one step as hypotheses: scores that must not be chosen become impossible. */
const toHypotheses = (
  search: BeamSearchState,
  candidates: readonly Candidate[],
  { options: { lengthPenalty = 1, earlyStopping = false } }: PreparedGeneration
): readonly Hypothesis[] => {
  const n = search.beams.length
  const isFull = earlyStopping === true && search.hypotheses.every(({ finishReason }) => finishReason)
  const divisor = Math.fround((candidates[0]!.ids.length - search.promptLength) ** lengthPenalty)
  // only the best n candidates may become hypotheses; the others exist so that n beams continue
  return candidates.map(({ ids, logprobs, beamIndices, score, finishReason }, i) => {
    const exclusions = [isFull, !search.canImprove, !(finishReason && i < n)]
    const penalized = exclusions.reduce(
      (sum, excluded) => (excluded ? addFloat32(sum, impossible) : sum),
      Math.fround(score / divisor)
    )
    return { ids, logprobs, beamIndices, score: penalized, finishReason: i < n ? finishReason : undefined }
  })
}

/**
 * One step of a search from its candidates, best first; `parents` are the beams that the new beams extend.
 * Source: `_beam_search` (transformers 5.24), for one row of the batch.
 */
export const searchStep = (
  search: BeamSearchState,
  candidates: readonly Candidate[],
  prepared: PreparedGeneration
): { readonly search: BeamSearchState; readonly parents: readonly number[] } => {
  const n = search.beams.length
  const continuing = candidates.map((c) => (c.finishReason ? { ...c, score: addFloat32(c.score, impossible) } : c))
  const beams = topBeams(continuing, n)
  const hypotheses = topBeams([...search.hypotheses, ...toHypotheses(search, candidates, prepared)], n)
  const next: BeamSearchState = { ...search, beams, hypotheses }
  const canImprove = canStillImprove(next, prepared)
  const isComplete = prepared.options.earlyStopping === true && hypotheses.every(({ finishReason }) => finishReason)
  const isFinished = !canImprove || isComplete || candidates.every(({ finishReason }) => finishReason)
  return { search: { ...next, canImprove, isFinished }, parents: beams.map(({ parent }) => parent) }
}

/** Ends a search early: its unfinished beams become hypotheses with the finish reason `aborted`. */
export const abortSearch = (search: BeamSearchState, { options: { lengthPenalty = 1 } }: PreparedGeneration): BeamSearchState => {
  const asHypothesis = (beam: Beam): Hypothesis => {
    const newTokens = Math.max(1, beam.ids.length - search.promptLength)
    return { ...beam, score: beam.score / newTokens ** lengthPenalty, finishReason: 'aborted' }
  }
  const finished = search.hypotheses.filter(({ finishReason }) => finishReason)
  const hypotheses = topBeams([...finished, ...search.beams.map(asHypothesis)], search.beams.length)
  return { ...search, hypotheses, isFinished: true }
}
