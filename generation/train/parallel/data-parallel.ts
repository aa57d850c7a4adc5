import { gatherSlices, ownSlices, type TreeReduction, treeReduction } from '../../../lib/distributed/buckets.js'
import type { WorkerGroup } from '../../../lib/distributed/worker-group.js'
import { InternVLError, issue } from '../../../lib/error.js'
import { clipFactor } from '../../../lib/optim/adamw.js'
import { disposeParams, namedParameters } from '../../../lib/params.js'
import { tf } from '../../../lib/tf.js'
import { lossScaling } from '../loss-scale.js'
import {
  type BatchIterator,
  disposerOf,
  expectFinite,
  type LossMetrics,
  type LossState,
  meanMetrics,
  partialGradient,
  type Stepper,
  type TrainOptions,
  type TrainState
} from '../training-loop.js'
import type { WorkerShare } from './worker-share.js'

/** Several workers, and what they share. */
export interface Parallel {
  readonly group: WorkerGroup
  /** ZeRO stage: 0 keeps the state of the optimizer on every worker, 1 shares it out. Source: Rajbhandari et al. 2020. */
  readonly zero: 0 | 1
}

/** Steps in a row without a sample before training ends with an error. */
const maxEmptySteps = 1000

/** Sums of numbers over all workers. */
export const sumOverWorkers = async (group: WorkerGroup, numbers: readonly number[]): Promise<readonly number[]> => {
  const values = tf.tensor1d([...numbers])
  try {
    const sum = await group.allReduce(values)
    const result = [...sum.dataSync()]
    sum.dispose()
    return result
  } finally {
    values.dispose()
  }
}

/** Batches of a worker in one step, and their sums over all workers. */
interface SharedBatches<B> {
  readonly batches: ReadonlyArray<readonly [batch: B, index: number]>
  readonly weight: number
  readonly tokens: number
  readonly ended: boolean
}

/** Awaits collective operations and adds up the seconds. */
type Timed = <A>(waiting: Promise<A>) => Promise<A>

/** Takes this worker's batches of the next step; batches that could not be made have no weight. */
const takeShared = async <P, B, S>(
  group: WorkerGroup,
  count: number,
  source: BatchIterator<B>,
  options: TrainOptions<P, B, S>,
  timed: Timed
) => {
  const { weightOf = () => 1, tokensOf = () => 0 } = options
  const batches: [B, number][] = []
  let ended = false
  for (let index = 0; index < count && !ended; index++) {
    const next = await source.next()
    if (next.done) ended = true
    else if (next.value !== undefined) batches.push([next.value, index])
  }
  const sumOf = (f: (batch: B) => number) => batches.reduce((sum, [batch]) => sum + f(batch), 0)
  const [weight, tokens, ends] = await timed(sumOverWorkers(group, [sumOf(weightOf), sumOf(tokensOf), ended ? 1 : 0]))
  return { batches, weight: weight!, tokens: tokens!, ended: ends! > 0 } satisfies SharedBatches<B>
}

/** Results of a worker that enter the report of a step. */
interface PartialReport {
  readonly weight: number
  readonly metrics: LossMetrics
  readonly lossState: LossState
}

/** The report of a step from those of all workers. A loss state is the weighted mean of the workers' states. */
const combined = (parts: readonly PartialReport[]) => {
  const present = parts.filter(({ weight }) => weight > 0)
  const meanOf = (key: 'metrics' | 'lossState') => meanMetrics(present.map((part) => [part[key], part.weight]))
  return { metrics: meanOf('metrics'), lossState: meanOf('lossState') }
}

/** The parameters and the optimizer's state after a step. Consumes `state` and `grads`. */
const applyUpdate = async <P, S>(
  { group, zero }: Parallel,
  { params, optimizer }: TrainState<P, S>,
  grads: P,
  { optimizer: { update } }: Pick<TrainOptions<P, never, S>, 'optimizer'>,
  gradScale: number,
  timed: Timed
) => {
  if (zero === 0) return update(params, grads, optimizer, { consume: true, gradScale })
  const shapes = new Map(namedParameters(params).map(([path, leaf]) => [path, leaf.shape]))
  const slices = ownSlices(group, grads)
  disposeParams(grads)
  const next = update(ownSlices(group, params), slices, optimizer, { consume: true, gradScale })
  const whole = await timed(gatherSlices(group, next.params, shapes))
  disposeParams(params)
  return { params: whole, state: next.state }
}

/**
 * Steps of one worker among several: each computes the gradient of its share of the batches, the gradients are summed, and every worker
 * takes the same step. The result is that of one worker with the same settings, up to the order of sums.
 */
export const dataParallel = <P, B, S>(parallel: Parallel, share: WorkerShare): Stepper<P, B, S> => {
  const { group } = parallel
  return async (initial, source, options) => {
    const { gradientAccumulation = 1 } = options
    const bytesBefore = group.traffic().bytes
    let [state, seconds] = [initial, 0]
    const timed: Timed = async (waiting) => {
      const start = performance.now()
      const result = await waiting
      seconds += (performance.now() - start) / 1000
      return result
    }
    for (let empty = 0; empty < maxEmptySteps; empty++) {
      const taken = await takeShared(group, gradientAccumulation / share.groups, source, options, timed)
      try {
        if (taken.ended) return undefined
        const position = state.position + gradientAccumulation // a batch that could not be made counts as a position in the data
        if (taken.weight > 0) {
          const next = await sharedStep(parallel, share, state, taken, options, timed)
          const communication = { bytes: group.traffic().bytes - bytesBefore, seconds }
          return { ...next, state: { ...next.state, position }, tokens: taken.tokens, communication }
        }
        state = { ...state, position }
      } finally {
        for (const [batch] of taken.batches) disposerOf(options)(batch)
      }
    }
    throw new InternVLError([
      issue('NoRows', `no sample of the last ${maxEmptySteps} steps could be made; fix the training data`)
    ])
  }
}

/** One step: gradient of this worker's batches, sum over all workers, update. */
const sharedStep = async <P, B, S>(
  parallel: Parallel,
  share: WorkerShare,
  state: TrainState<P, S>,
  taken: SharedBatches<B>,
  options: TrainOptions<P, B, S>,
  timed: Timed
) => {
  const { group } = parallel
  const { weightOf = () => 1, maxGradNorm = Number.POSITIVE_INFINITY } = options
  const { scale, after } = lossScaling(state, options.precision)
  const reduction = treeReduction(group, state.params)
  const local = group.whileComputing(() => localGradient(state, taken, options, share, scale, reduction))
  const weight = taken.batches.reduce((sum, [batch]) => sum + weightOf(batch), 0)
  const { metrics, lossState } = local
  const reducing = [reduction.sums(), group.gather<PartialReport>({ metrics, lossState, weight })] as const
  const [grads, parts] = await timed(Promise.all(reducing))
  try {
    // the norm of worker 0, because the last digit may differ between processors
    const norm = group.rank === 0 ? clipFactor(maxGradNorm)(grads).norm : 0
    const [loss = 0, scaledNorm = 0] = await timed(sumOverWorkers(group, [local.loss, norm]))
    const [step, gradNorm] = [state.step + 1, scaledNorm / scale]
    const report = combined(parts)
    const { lossScale, isSkipped } = after(scaledNorm)
    const counts = { step, lossState: report.lossState, ...lossScale }
    if (isSkipped) {
      disposeParams(grads)
      return { state: { ...state, ...counts }, loss, gradNorm: Number.POSITIVE_INFINITY }
    }
    expectFinite(step, loss, gradNorm)
    const gradScale = Math.min(1, (maxGradNorm * scale) / (scaledNorm + 1e-6)) / scale
    const next = await applyUpdate(parallel, state, grads, options, gradScale, timed)
    return {
      state: { params: next.params, optimizer: next.state, ...counts },
      ...{ loss, gradNorm },
      ...(Object.keys(report.metrics).length > 0 ? { metrics: report.metrics } : {})
    }
  } catch (error) {
    disposeParams(grads)
    throw error
  }
}

/**
 * The gradient of a worker's batches as a part of the mean over the whole step, whose leaves go to `reduction` while the backward pass of the last
 * batch goes on; zeros without a batch.
 */
const localGradient = <P, B, S>(
  state: TrainState<P, S>,
  { batches, weight }: SharedBatches<B>,
  options: TrainOptions<P, B, S>,
  { group, groups, part }: WorkerShare,
  scale: number,
  { add, cancel }: TreeReduction<P>
) => {
  if (batches.length === 0) {
    for (const [path, leaf] of namedParameters(state.params)) add(path, tf.zerosLike(leaf))
    return { loss: 0, lossState: state.lossState, metrics: {} }
  }
  const seedOf = (i: number) => (state.position + batches[i]![1] * groups + group + 1) ^ Math.imul(part, 0x85ebca6b)
  try {
    const { metrics = {}, ...result } = partialGradient(
      state,
      batches.map(([batch]) => batch),
      options,
      { seedOf, scale, total: weight, take: (path, leaf) => add(path, tf.keep(leaf)) }
    )
    return { ...result, metrics }
  } catch (error) {
    void cancel() // the others wait for this worker until they hear of its end
    throw error
  }
}
