import * as E from 'fp-ts/lib/Either.js'
import { InternVLError, type Issue, issue, orThrow } from '../../lib/error.js'
import { disposeParams } from '../../lib/params.js'
import { lastCheckpoint, loadCheckpoint, type SaveCheckpointOptions, saveCheckpoint } from './train-checkpoint.js'
import { type Batches, initialState, type StepReport, type TrainOptions, type TrainState, train } from './training-loop.js'

/** Numbers of an evaluation, by name; `loss` is what the best checkpoint is chosen by. */
export type Scores = Readonly<Record<string, number>> & { readonly loss: number }

/** Who is told what happens: a progress bar, a log. Numbers alone, no tensors. */
export interface Listener {
  /** The run begins, or goes on, after `step` steps. */
  readonly begin?: (step: number) => void
  readonly step?: (report: Omit<StepReport<unknown>, 'state'>) => void
  readonly evaluated?: (step: number, scores: Scores) => void
  readonly saved?: (step: number, path: string) => void
  /** The run is over, finished or not. */
  readonly end?: () => void | Promise<void>
}

export interface RunOptions<P, B> extends TrainOptions<P, B>, Pick<SaveCheckpointOptions, 'keep' | 'settings' | 'data'> {
  /** Where checkpoints are kept. */
  readonly checkpoints: string
  /** Steps from one checkpoint to the next; one is also saved after each evaluation, and at the end. */
  readonly saveEvery?: number
  readonly evaluate?: (params: P) => Scores | Promise<Scores>
  readonly evaluateEvery?: number
  readonly listeners?: readonly Listener[]
  /** Go on from the last checkpoint; without it there must be none. */
  readonly resume?: boolean
  /** Stops after the step under way, with a checkpoint. */
  readonly signal?: AbortSignal
}

const begin = async <P, B>(params: P, { checkpoints, resume, optimizer }: RunOptions<P, B>): Promise<TrainState<P>> => {
  const last = await lastCheckpoint(checkpoints)
  if (last === undefined) return initialState(params, optimizer)
  if (!resume) {
    const message = `${checkpoints}: a run has left checkpoints here; resume it, or give another folder`
    throw new InternVLError([issue('CheckpointsThere', message, { file: checkpoints })])
  }
  const { state } = await orThrow(loadCheckpoint(last, params))
  disposeParams(params)
  return state
}

/** What stopped a run, and where it can go on from. */
const stopped = async (error: InternVLError, checkpoints: string): Promise<InternVLError> => {
  const last = await lastCheckpoint(checkpoints)
  const advice = last ? `the last good checkpoint is ${last}; resume goes on from there` : 'there is no checkpoint yet'
  const [first, ...others] = error.issues
  const named = (f: Issue): Issue => ({ ...f, message: `training stopped: ${f.message}` })
  return new InternVLError([named(first), ...others.map(named), issue('TrainingStopped', `training stopped: ${advice}`)])
}

/** What is wrong outside of the program, a log that can't be written too. */
const outside = (error: unknown): InternVLError | undefined => {
  if (error instanceof InternVLError) return error
  if (!(error instanceof Error && 'syscall' in error)) return undefined
  return new InternVLError([issue('WriteFailed', `a log cannot be written (${error.message})`)])
}

const ended = async (listeners: readonly Listener[]): Promise<void> => {
  for (const { end } of listeners) await end?.()
}

const isDue = (step: number, every: number | undefined, steps: number | undefined): boolean =>
  (every !== undefined && step % every === 0) || step === steps

/**
 * Trains with checkpoints, evaluations and listeners, from the start or from where an earlier run was when it ended or was killed.
 * `params` are handed over; the state that is given back is the caller's. Throws an `InternVLError`: a loss that is not finite, a
 * checkpoint that can't be written or read; it names the last good checkpoint.
 */
export const run = async <P, B>(params: P, batches: Batches<B>, options: RunOptions<P, B>): Promise<TrainState<P>> => {
  const { checkpoints, saveEvery, evaluateEvery, evaluate, listeners = [], steps, signal } = options
  let state = await begin(params, options)
  let saved = state.step
  const save = async (scores?: Scores) => {
    const path = await saveCheckpoint(checkpoints, state, { ...options, ...(scores ? { metric: scores.loss } : {}) })()
    if (E.isLeft(path)) throw new InternVLError(path.left)
    saved = state.step
    for (const { saved } of listeners) saved?.(state.step, path.right)
  }
  for (const { begin } of listeners) begin?.(state.step)
  try {
    for await (const { state: next, ...report } of train(state, batches, options)) {
      state = next
      for (const { step } of listeners) step?.(report)
      const scores = isDue(state.step, evaluateEvery, steps) ? await evaluate?.(state.params) : undefined
      if (scores) for (const { evaluated } of listeners) evaluated?.(state.step, scores)
      if (scores || isDue(state.step, saveEvery, steps) || signal?.aborted) await save(scores)
      if (signal?.aborted) break
    }
    if (saved < state.step) await save()
  } catch (error) {
    disposeParams([state.params, state.optimizer.first, state.optimizer.second])
    const known = outside(error)
    await ended(listeners).catch(() => undefined) // what stopped the run is what is told
    throw known ? await stopped(known, checkpoints) : error
  }
  await ended(listeners)
  return state
}
