import * as E from 'fp-ts/lib/Either.js'
import { InternVLError, type Issue, issue, orThrow } from '../../lib/error.js'
import type { AdamWState } from '../../lib/optim/adamw.js'
import { disposeParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { dataParallel, type Parallel, sumOverWorkers } from './parallel/data-parallel.js'
import { expectEqualParameters, sharedInit, shareState, wholeOptimizer } from './parallel/shared-state.js'
import type { WorkerShare } from './parallel/worker-share.js'
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
  /**
   * Shares steps with other workers, which call `runTrainer` with the same options. Worker 0 reads and writes the checkpoints and calls
   * the callbacks; a signal of one worker stops all.
   */
  readonly parallel?: Parallel & { readonly share: WorkerShare }
}

/** The state of the last checkpoint, or the initial state where there is no checkpoint. */
const savedState = async <P, B>(params: P, { checkpoints, resume, optimizer }: TrainerOptions<P, B>): Promise<TrainState<P>> => {
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

/** The state of worker 0, which reads the checkpoint, on every worker. */
const startState = async <P, B>(params: P, options: TrainerOptions<P, B>): Promise<TrainState<P>> => {
  const { parallel, optimizer } = options
  if (!parallel) return savedState(params, options)
  const { group, zero } = parallel
  const saved = group.rank === 0 ? await savedState(params, options) : undefined
  if (await group.broadcast(saved !== undefined && saved.step > 0))
    return shareState(parallel, saved ?? initialState(params, optimizer))
  if (saved && zero === 0) return saved
  tf.dispose(saved ? [saved.optimizer.first, saved.optimizer.second] : [])
  return { ...initialState(params, { ...optimizer, init: (tree) => sharedInit(parallel, tree, optimizer) }) }
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

/** Whether the signal of any worker has fired. Collective. */
const anyWorker = async ({ group }: Parallel, signal: AbortSignal | undefined): Promise<boolean> =>
  (await sumOverWorkers(group, [signal?.aborted ? 1 : 0]))[0]! > 0

/**
 * Trains with checkpoints, evaluations and callbacks, from the start or from the last checkpoint of an earlier run. Takes ownership
 * of `params`; the caller owns the returned state. Throws an `InternVLError` when the loss is not finite or a checkpoint cannot be
 * read or written; the error names the last good checkpoint.
 */
export const runTrainer = async <P, B>(params: P, batches: Batches<B>, options: TrainerOptions<P, B>): Promise<TrainState<P>> => {
  const { checkpoints, saveSteps, evaluateSteps, evaluate, steps, signal, parallel } = options
  const isFirst = parallel === undefined || parallel.group.rank === 0
  const callbacks = isFirst ? (options.callbacks ?? []) : []
  const stepper = parallel ? dataParallel<P, B, AdamWState>(parallel, parallel.share) : undefined
  let state = await startState(params, options)
  let savedStep = state.step
  const save = async (metrics?: Metrics) => {
    savedStep = state.step
    if (parallel) await expectEqualParameters(parallel, state)
    const { optimizer, dispose } = parallel
      ? await wholeOptimizer(parallel, state)
      : { optimizer: state.optimizer, dispose: () => {} }
    try {
      if (!isFirst) return
      const saving = { ...options, ...(metrics ? { metric: metrics.loss } : {}) }
      const path = await saveCheckpoint(checkpoints, { ...state, optimizer }, saving)()
      if (E.isLeft(path)) throw new InternVLError(path.left)
      for (const { onSave } of callbacks) onSave?.(state.step, path.right)
    } finally {
      dispose()
    }
  }
  try {
    for (const { onTrainBegin } of callbacks) onTrainBegin?.(state.step)
    for await (const { state: next, ...report } of train(state, batches, { ...options, ...(stepper ? { stepper } : {}) })) {
      state = next
      for (const { onStepEnd } of callbacks) onStepEnd?.(report)
      const metrics = isDue(state.step, evaluateSteps, steps) ? await evaluate?.(state.params) : undefined
      if (metrics) for (const { onEvaluate } of callbacks) onEvaluate?.(state.step, metrics)
      const isStopped = parallel ? await anyWorker(parallel, signal) : (signal?.aborted ?? false)
      if (metrics || isDue(state.step, saveSteps, steps) || isStopped) await save(metrics)
      if (isStopped) break
    }
    if (savedStep < state.step) await save()
  } catch (error) {
    disposeParams([state.params, state.optimizer.first, state.optimizer.second])
    const external = externalError(error)
    await endAll(callbacks).catch(() => undefined) // report the error that stopped training
    throw external && isFirst ? await stoppedError(external, checkpoints) : (external ?? error)
  }
  await endAll(callbacks).catch((error: unknown) => {
    disposeParams([state.params, state.optimizer.first, state.optimizer.second])
    throw externalError(error) ?? error
  })
  return state
}
