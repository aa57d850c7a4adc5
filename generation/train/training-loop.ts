import { setImmediate } from 'node:timers/promises'
import { accumulate, accumulateEach, type GradientTaker, valueAndGrad } from '../../lib/autograd/grad.js'
import { type TrainingOptions, training } from '../../lib/autograd/train-mode.js'
import { autocast } from '../../lib/engines/tensorflow-kernels/compute-type.js'
import { InternVLError, issue } from '../../lib/error.js'
import { type AdamWState, clipFactor, type Optimizer } from '../../lib/optim/adamw.js'
import type { Schedule } from '../../lib/optim/schedule.js'
import { disposeParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'
import { type LossScale, lossScaling } from './loss-scale.js'

/** Numbers that a loss passes from batch to batch, by name: the running reward mean of BCO. */
export type LossState = Readonly<Record<string, number>>

/**
 * The state of training between two steps. Equal state, data and options give equal losses. There is no random state: every seed is
 * derived from the seed of the options and `position`.
 */
export interface TrainState<P, S = AdamWState> {
  /** The trained parameters; a partial tree where the other parameters are frozen. */
  readonly params: P
  readonly optimizer: S
  /** Number of steps taken. */
  readonly step: number
  /** Number of batches taken from the data. */
  readonly position: number
  readonly lossState: LossState
  /** Present after a step in float16. */
  readonly lossScale?: LossScale
}

/** Further numbers of a batch or a step by name, for logs: `rewards/margins` of preference losses. */
export type LossMetrics = Readonly<Record<string, number>>

/** The loss of a batch, with `lossState` where the loss changes it, and metrics where the loss has any. */
export type Loss<P, B> = (
  params: P,
  batch: B,
  lossState: LossState
) => { readonly loss: tf.Scalar; readonly lossState?: LossState; readonly metrics?: LossMetrics }

/** Batches from a position on, equal for equal positions; `undefined` stands for a batch that could not be made. */
export type Batches<B> = (position: number) => AsyncIterable<B | undefined> | Iterable<B | undefined>

export interface TrainOptions<P, B, S = AdamWState> {
  readonly loss: Loss<P, B>
  readonly optimizer: Optimizer<S>
  /** Total number of steps, with the steps of the initial state. Default: until the data ends. */
  readonly steps?: number
  /** Batches per step. The loss of a step is their mean, weighted by `weightOf`. Default: 1. */
  readonly gradientAccumulation?: number
  /** Weight of a batch within its step: its supervised tokens, its samples. Default: 1. */
  readonly weightOf?: (batch: B) => number
  /** Number of tokens of a batch, for the report. Default: 0. */
  readonly tokensOf?: (batch: B) => number
  /** Gradients are scaled down to this global norm. Default: no clipping. */
  readonly maxGradNorm?: number
  /** Learning rate of each step, for the report: the schedule of the optimizer. */
  readonly learningRate?: Schedule
  /**
   * Type of matrix products and attention in kernels of TensorFlow's ops; weights, gradients and moments stay float32. In float16 the loss is scaled, and a step
   * whose gradients overflow changes no weights. Default: float32.
   */
  readonly precision?: 'float32' | 'bfloat16' | 'float16'
  /** Dropout, drop path, gradient checkpointing and the seed. */
  readonly training?: TrainingOptions
  /** Disposes a batch after its step. Default: disposes every tensor in the batch. */
  readonly disposeBatch?: (batch: B) => void
  /** Takes the next batches and a step. Default: on this machine alone; see `parallel/` for several workers. */
  readonly stepper?: Stepper<P, B, S>
}

/** Batches in the order of the data. */
export type BatchIterator<B> = AsyncIterator<B | undefined> | Iterator<B | undefined>

/**
 * Takes the batches of the next step from the data and the step itself; `undefined` where the data has ended. Consumes `state`, except
 * where it throws. Disposes the batches.
 */
export type Stepper<P, B, S = AdamWState> = (
  state: TrainState<P, S>,
  source: BatchIterator<B>,
  options: TrainOptions<P, B, S>
) => Promise<Omit<StepReport<P, S>, 'seconds' | 'learningRate' | 'step'> | undefined>

/** The numbers of one step, and the state after the step. */
export interface StepReport<P, S = AdamWState> {
  readonly state: TrainState<P, S>
  /** Number of steps taken, including this step. */
  readonly step: number
  /** The loss before the update. */
  readonly loss: number
  /** Global norm of the gradient before clipping; infinite where float16 overflowed and the step changed no weights. */
  readonly gradNorm: number
  readonly learningRate: number
  /** Metrics of the loss, the weighted mean over the batches of the step; absent where the loss has none. */
  readonly metrics?: LossMetrics
  readonly tokens: number
  /** With several workers: bytes that this worker sent, and the seconds in which it waited for others. */
  readonly communication?: { readonly bytes: number; readonly seconds: number }
  /** Duration of the step, including the time to wait for data. */
  readonly seconds: number
}

/** The state before the first step. */
export const initialState = <P, S>(params: P, optimizer: Optimizer<S>): TrainState<P, S> => ({
  params,
  optimizer: optimizer.init(params),
  step: 0,
  position: 0,
  lossState: {}
})

const scalarOf = (value: tf.Scalar): number => {
  const [number] = value.dataSync()
  value.dispose()
  return number!
}

/** Weighted mean of metrics by name, over the batches that have the name. */
export const meanMetrics = (parts: ReadonlyArray<readonly [metrics: LossMetrics, weight: number]>): LossMetrics => {
  const names = [...new Set(parts.flatMap(([metrics]) => Object.keys(metrics)))]
  return Object.fromEntries(
    names.map((name) => {
      const having = parts.flatMap(([metrics, weight]) => (name in metrics ? [[metrics[name]!, weight] as const] : []))
      const total = having.reduce((sum, [, weight]) => sum + weight, 0)
      return [name, having.reduce((sum, [value, weight]) => sum + value * weight, 0) / total]
    })
  )
}

/** The settings of a gradient. */
export interface GradientSettings {
  /** A number for the random masks of each batch by its index: its position in the data. */
  readonly seedOf: (index: number) => number
  /** The gradient is this times as large. */
  readonly scale: number
}

/** The losses of a step's batches as functions of the parameters, and what these functions find: the loss state, and the mean of the metrics. */
const lossesOf = <P, B, S>(before: LossState, options: TrainOptions<P, B, S>, { seedOf, scale }: GradientSettings) => {
  const { loss, weightOf = () => 1, training: mode = { seed: 0 } } = options
  let [lossState, index] = [before, 0]
  const metrics: [LossMetrics, number][] = []
  const lossOf = (batch: B) => (params: P) => {
    const seed = Math.imul(mode.seed, 0x9e3779b1) ^ seedOf(index++)
    return training({ ...mode, seed }, () => {
      const result = loss(params, batch, lossState)
      lossState = result.lossState ?? lossState
      if (result.metrics) metrics.push([result.metrics, weightOf(batch)])
      return scale === 1 ? result.loss : result.loss.mul<tf.Scalar>(scale)
    })
  }
  return { lossOf, found: () => ({ lossState, metrics: metrics.length > 0 ? meanMetrics(metrics) : undefined }) }
}

/** Loss and gradient of the batches of a step, the loss state after them, and their metrics. */
export const gradient = <P, B, S>(
  { params, lossState }: Pick<TrainState<P, S>, 'params' | 'lossState'>,
  batches: readonly B[],
  options: TrainOptions<P, B, S>,
  settings: GradientSettings
) => {
  const { lossOf, found } = lossesOf(lossState, options, settings)
  const { weightOf = () => 1, precision = 'float32' } = options
  const differentiate = batches.length === 1 ? valueAndGrad(lossOf(batches[0]!)) : accumulate(batches, weightOf, lossOf)
  const { value, grads } = autocast(precision, () => differentiate(params))
  return { loss: scalarOf(value) / settings.scale, grads, ...found() }
}

/**
 * The same as a part of the weighted mean over all workers, whose weights sum to `total`: `take` owns each leaf of the gradient, from the time at which
 * the backward pass has completed it.
 */
export const partialGradient = <P, B, S>(
  { params, lossState }: Pick<TrainState<P, S>, 'params' | 'lossState'>,
  batches: readonly B[],
  options: TrainOptions<P, B, S>,
  { total, take, ...settings }: GradientSettings & { readonly total: number; readonly take: GradientTaker }
) => {
  const { lossOf, found } = lossesOf(lossState, options, settings)
  const { weightOf = () => 1, precision = 'float32' } = options
  const value = autocast(precision, () => accumulateEach(batches, weightOf, lossOf, total, take)(params))
  return { loss: scalarOf(value) / settings.scale, ...found() }
}

/** Throws an `InternVLError` where a loss or a gradient norm is not finite. */
export const expectFinite = (step: number, loss: number, norm: number): void => {
  if (Number.isFinite(loss) && Number.isFinite(norm)) return
  const message = `step ${step}: the loss is ${loss}, the gradient norm is ${norm}; this step changed no weights. Try a lower learning rate or a longer warm-up, and check the data.`
  throw new InternVLError([issue('LossNotFinite', message, { step, loss, norm })])
}

/**
 * One optimizer step: the next state, with the loss and the gradient norm before the update. Consumes `state`. Throws an
 * `InternVLError` when the loss or the gradient is not finite; `state` is then unchanged and still owned by the caller.
 */
export const takeStep = <P, B, S>(state: TrainState<P, S>, batches: readonly B[], options: TrainOptions<P, B, S>) => {
  const { scale, after } = lossScaling(state, options.precision)
  const seedOf = (i: number) => state.position + i + 1
  const { loss, grads, lossState, metrics } = gradient(state, batches, options, { seedOf, scale })
  const position = state.position + batches.length
  const { norm, factor } = clipFactor((options.maxGradNorm ?? Number.POSITIVE_INFINITY) * scale)(grads)
  const [step, gradNorm] = [state.step + 1, norm / scale]
  const { lossScale, isSkipped } = after(norm)
  if (isSkipped) {
    disposeParams(grads)
    return { state: { ...state, step, position, lossState, ...lossScale }, loss, gradNorm: Number.POSITIVE_INFINITY }
  }
  try {
    expectFinite(step, loss, gradNorm)
  } catch (error) {
    disposeParams(grads)
    throw error
  }
  const next = options.optimizer.update(state.params, grads, state.optimizer, { consume: true, gradScale: factor / scale })
  const report = { loss, gradNorm, ...(metrics ? { metrics } : {}) }
  return { state: { params: next.params, optimizer: next.state, step, position, lossState, ...lossScale }, ...report }
}

/**
 * Adds the next `n` batches to `taken`, fewer where the data ends. Returns the number of batches between them that could not be made. Where
 * the source throws, `taken` has the batches before.
 */
const takeBatches = async <B>(source: BatchIterator<B>, n: number, taken: B[]) => {
  let missing = 0
  while (taken.length < n) {
    const next = await source.next()
    if (next.done) break
    if (next.value === undefined) missing++
    else taken.push(next.value)
  }
  return missing
}

const iterate = <A>(source: AsyncIterable<A> | Iterable<A>): AsyncIterator<A> | Iterator<A> =>
  Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()

/** Disposes every tensor of a batch, unless the options say how. */
export const disposerOf = <P, B, S>({ disposeBatch }: TrainOptions<P, B, S>): ((batch: B) => void) =>
  disposeBatch ?? ((batch) => tf.dispose(batch as tf.TensorContainer))

/** A step of this machine alone. */
const takeNextStep = async <P, B, S>(state: TrainState<P, S>, source: BatchIterator<B>, options: TrainOptions<P, B, S>) => {
  const { gradientAccumulation = 1, tokensOf = () => 0 } = options
  const taken: B[] = []
  try {
    const missing = await takeBatches(source, gradientAccumulation, taken)
    if (taken.length === 0) return undefined
    const from = { ...state, position: state.position + missing } // a missing batch counts as a position in the data
    const tokens = taken.reduce((n, batch) => n + tokensOf(batch), 0)
    return { ...takeStep(from, taken, options), tokens }
  } finally {
    taken.forEach(disposerOf(options))
  }
}

/**
 * The training loop: yields a report and the state after each step. A state is valid until the caller requests the next one, which
 * consumes it. The caller disposes the last state, also when the loop throws or is left early. Throws as `takeStep`.
 *
 * `for await (const { step, loss, state } of train(initialState(params, optimizer), batches, { loss, optimizer, steps: 100 })) …`
 */
export async function* train<P, B, S = AdamWState>(
  initial: TrainState<P, S>,
  batches: Batches<B>,
  options: TrainOptions<P, B, S>
): AsyncGenerator<StepReport<P, S>, void, void> {
  const { steps = Infinity, learningRate = () => 0, stepper = takeNextStep<P, B, S> } = options
  const source = iterate(batches(initial.position))
  let state = initial
  try {
    while (state.step < steps) {
      const startTime = performance.now()
      await setImmediate() // let messages and signals through between steps
      const rate = learningRate(state.step)
      const taken = await stepper(state, source, options)
      if (taken === undefined) return
      state = taken.state
      yield { ...taken, step: state.step, learningRate: rate, seconds: (performance.now() - startTime) / 1000 }
    }
  } finally {
    await source.return?.()
  }
}
