import type * as E from 'fp-ts/lib/Either.js'
import { type Issues, issue, whenValid } from '../../../lib/error.js'

/**
 * The part of each step that one worker computes. The batches of a step, one after the other, go to `groups` groups of workers in turn;
 * the samples of a batch are split into `parts` equal parts, one for each worker of a group.
 */
export interface WorkerShare {
  readonly group: number
  readonly groups: number
  readonly part: number
  readonly parts: number
}

const greatestCommonDivisor = (a: number, b: number): number => (b === 0 ? a : greatestCommonDivisor(b, a % b))

/**
 * The share of worker `rank` of `workers`. Whole batches are shared out as far as possible: the loss of a batch does not depend on
 * the number of workers then. Error: the workers cannot share the samples of a step evenly.
 */
export const workerShare = (
  rank: number,
  workers: number,
  { batchSize, gradientAccumulation }: { readonly batchSize: number; readonly gradientAccumulation: number }
): E.Either<Issues, WorkerShare> => {
  const groups = greatestCommonDivisor(workers, gradientAccumulation)
  const parts = workers / groups
  const samples = batchSize * gradientAccumulation
  const message = `${workers} workers cannot share the ${samples} samples of a step evenly (batch.size ${batchSize} times batch.gradientAccumulation ${gradientAccumulation}); choose settings whose product is a multiple of ${workers}`
  const issues = batchSize % parts === 0 ? [] : [issue('WorkerShare', message, { workers, samples })]
  return whenValid(issues, () => ({ group: Math.floor(rank / parts), groups, part: rank % parts, parts }))
}

/** The share of worker `rank` in an evaluation: whole batches in turn. */
export const evaluationShare = (rank: number, workers: number): WorkerShare => ({
  group: rank,
  groups: workers,
  part: 0,
  parts: 1
})

/** A worker's part of the samples of a batch. */
export const partOf = <A>(samples: readonly A[], { part, parts }: WorkerShare): readonly A[] =>
  samples.slice(Math.floor((part * samples.length) / parts), Math.floor(((part + 1) * samples.length) / parts))
