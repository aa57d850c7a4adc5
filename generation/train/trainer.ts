import * as E from 'fp-ts/lib/Either.js'
import { InternVLError, type Issue, issue, orThrow } from '../../lib/error.js'
import { disposeParams } from '../../lib/params.js'
import { lastCheckpoint, loadCheckpoint, saveCheckpoint, type TrainCheckpointOptions } from './train-checkpoint.js'
import { type Batches, initialState, type StepReport, type TrainOptions, type TrainState, train } from './training-loop.js'

/** Metrics of an evaluation, by name. The best checkpoint is the one with the lowest `loss`. */
export type Metrics = Readonly<Record<string, number>> & { readonly loss: number }

/** Functions that the trainer calls at each event, for progress bars and logs. They receive numbers, never tensors. */
export interface TrainerCallback {
  /** Training begins or resumes; `step` steps were taken before. */
  readonly onTrainBegin?: (step: number) => void
  readonly onStepEnd?: (report: Omit<StepReport<unknown>, 'state'>) => void
  readonly onEvaluate?: (step: number, metrics: Metrics) => void
  readonly onSave?: (step: number, path: string) => void
  /** Training ended: completed, stopped or failed. */
  readonly onTrainEnd?: () => void | Promise<void>
}

export interface TrainerOptions<P, B>
  extends TrainOptions<P, B>,
    Pick<TrainCheckpointOptions, 'keepLast' | 'settings' | 'dataDigest'> {
  /** Folder of the checkpoints. */
  readonly checkpoints: string
  /** Steps between two checkpoints. A checkpoint is also saved after each evaluation and after the last step. */
  readonly saveSteps?: number
  readonly evaluate?: (params: P) => Metrics | Promise<Metrics>
  /** Steps between two evaluations. */
  readonly evaluateSteps?: number
  readonly callbacks?: readonly TrainerCallback[]
  /** Resumes from the last checkpoint. Without this option the folder must hold no checkpoint. */
  readonly resume?: boolean
  /** Stops after the current step and saves a checkpoint. */
  readonly signal?: AbortSignal
}

/** The state of the last checkpoint, or the initial state where there is no checkpoint. */
const startState = async <P, B>(params: P, { checkpoints, resume, optimizer }: TrainerOptions<P, B>): Promise<TrainState<P>> => {
  const last = await lastCheckpoint(checkpoints)
  if (last === undefined) return initialState(params, optimizer)
  if (!resume) {
    disposeParams(params)
    const message = `${checkpoints}: the folder holds checkpoints of an earlier run; resume this run, or choose another folder`
    throw new InternVLError([issue('CheckpointsThere', message, { file: checkpoints })])
  }
  try {
    return (await orThrow(loadCheckpoint(last, params))).state
  } finally {
    disposeParams(params)
  }
}

/** The errors that stopped training, and the checkpoint from which training can resume. */
const stoppedError = async (error: InternVLError, checkpoints: string): Promise<InternVLError> => {
  const last = await lastCheckpoint(checkpoints)
  const advice = last ? `the last good checkpoint is ${last}; resume to continue from there` : 'there is no checkpoint yet'
  const [first, ...others] = error.issues
  const prefixed = (f: Issue): Issue => ({ ...f, message: `training stopped: ${f.message}` })
  return new InternVLError([prefixed(first), ...others.map(prefixed), issue('TrainingStopped', `training stopped: ${advice}`)])
}

/** Errors from outside of the program: validation errors, and system errors of a callback that writes a file. */
const externalError = (error: unknown): InternVLError | undefined => {
  if (error instanceof InternVLError) return error
  if (!(error instanceof Error && 'syscall' in error)) return undefined
  return new InternVLError([issue('WriteFailed', `a log file cannot be written (${error.message})`)])
}

const endAll = async (callbacks: readonly TrainerCallback[]): Promise<void> => {
  for (const { onTrainEnd } of callbacks) await onTrainEnd?.()
}

const isDue = (step: number, interval: number | undefined, lastStep: number | undefined): boolean =>
  (interval !== undefined && step % interval === 0) || step === lastStep

/**
 * Trains with checkpoints, evaluations and callbacks, from the start or from the last checkpoint of an earlier run. Takes ownership
 * of `params`; the caller owns the returned state. Throws an `InternVLError` when the loss is not finite or a checkpoint cannot be
 * read or written; the error names the last good checkpoint.
 */
export const runTrainer = async <P, B>(params: P, batches: Batches<B>, options: TrainerOptions<P, B>): Promise<TrainState<P>> => {
  const { checkpoints, saveSteps, evaluateSteps, evaluate, callbacks = [], steps, signal } = options
  let state = await startState(params, options)
  let savedStep = state.step
  const save = async (metrics?: Metrics) => {
    const path = await saveCheckpoint(checkpoints, state, { ...options, ...(metrics ? { metric: metrics.loss } : {}) })()
    if (E.isLeft(path)) throw new InternVLError(path.left)
    savedStep = state.step
    for (const { onSave } of callbacks) onSave?.(state.step, path.right)
  }
  try {
    for (const { onTrainBegin } of callbacks) onTrainBegin?.(state.step)
    for await (const { state: next, ...report } of train(state, batches, options)) {
      state = next
      for (const { onStepEnd } of callbacks) onStepEnd?.(report)
      const metrics = isDue(state.step, evaluateSteps, steps) ? await evaluate?.(state.params) : undefined
      if (metrics) for (const { onEvaluate } of callbacks) onEvaluate?.(state.step, metrics)
      if (metrics || isDue(state.step, saveSteps, steps) || signal?.aborted) await save(metrics)
      if (signal?.aborted) break
    }
    if (savedStep < state.step) await save()
  } catch (error) {
    disposeParams([state.params, state.optimizer.first, state.optimizer.second])
    const external = externalError(error)
    await endAll(callbacks).catch(() => undefined) // report the error that stopped training
    throw external ? await stoppedError(external, checkpoints) : error
  }
  await endAll(callbacks).catch((error: unknown) => {
    disposeParams([state.params, state.optimizer.first, state.optimizer.second])
    throw externalError(error) ?? error
  })
  return state
}
