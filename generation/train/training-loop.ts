import { setImmediate } from 'node:timers/promises'
import { accumulate, valueAndGrad } from '../../lib/autograd/grad.js'
import { type Training, training } from '../../lib/autograd/train-mode.js'
import { InternVLError, issue } from '../../lib/error.js'
import { type AdamWState, clipFactor, type Optimizer } from '../../lib/optim/adamw.js'
import type { Schedule } from '../../lib/optim/schedule.js'
import { disposeParams } from '../../lib/params.js'
import { tf } from '../../lib/tf.js'

/** Numbers that a loss carries from batch to batch, by name: BCO's running reward shift. */
export type Memory = Readonly<Record<string, number>>

/**
 * Everything that a run knows between two steps: from an equal state, equal data and options follow equal losses. Randomness is
 * no part of it, for every seed is made of the run's own and `position`.
 */
export interface TrainState<P, S = AdamWState> {
  /** What is trained; a partial tree where the rest is frozen. */
  readonly params: P
  readonly optimizer: S
  /** Steps taken. */
  readonly step: number
  /** Batches taken from the data. */
  readonly position: number
  readonly memory: Memory
}

/** The loss of a batch; `memory` where it changes. */
export type Loss<P, B> = (params: P, batch: B, memory: Memory) => { readonly loss: tf.Scalar; readonly memory?: Memory }

/** Batches from a position on, the same for the same position; `undefined` in the place of one that could not be made. */
export type Batches<B> = (position: number) => AsyncIterable<B | undefined> | Iterable<B | undefined>

export interface TrainOptions<P, B, S = AdamWState> {
  readonly loss: Loss<P, B>
  readonly optimizer: Optimizer<S>
  /** Stops after so many steps in all, those of `state` included; when the data ends unless given. */
  readonly steps?: number
  /** Batches a step: the loss is their mean, weighted by `weightOf`. 1 by default. */
  readonly accumulation?: number
  /** What a batch counts beside the others of its step: its supervised tokens, its samples. 1 by default. */
  readonly weightOf?: (batch: B) => number
  /** Tokens of a batch, for the report; none by default. */
  readonly tokensOf?: (batch: B) => number
  /** Gradients are scaled down to this global norm; not at all unless given. */
  readonly maxNorm?: number
  /** The rate of each step, for the report: the one that the optimizer was made with. */
  readonly rate?: Schedule
  /** Dropout, drop path, recomputation; the seed is the run's. */
  readonly training?: Training
  /** Frees a batch after its step; its tensors, wherever they lie in it, by default. */
  readonly disposeBatch?: (batch: B) => void
}

/** What a step was like, and the state after it. */
export interface StepReport<P, S = AdamWState> {
  readonly state: TrainState<P, S>
  /** Steps taken, this one included. */
  readonly step: number
  /** Before the step. */
  readonly loss: number
  /** The gradient's global norm, before it was clipped. */
  readonly norm: number
  readonly rate: number
  readonly tokens: number
  /** For the step, waiting for data included. */
  readonly seconds: number
}

/** The state of a run that has not begun. */
export const initialState = <P, S>(params: P, optimizer: Optimizer<S>): TrainState<P, S> => ({
  params,
  optimizer: optimizer.init(params),
  step: 0,
  position: 0,
  memory: {}
})

const scalarOf = (value: tf.Scalar): number => {
  const [number] = value.dataSync()
  value.dispose()
  return number!
}

/** Loss and gradient of a step's batches, and what the loss remembers after them. */
const gradient = <P, B, S>(state: TrainState<P, S>, batches: readonly B[], options: TrainOptions<P, B, S>) => {
  const { loss, weightOf = () => 1, training: mode = { seed: 0 } } = options
  let { memory, position } = state
  const lossOf = (batch: B) => (params: P) => {
    const seed = Math.imul(mode.seed, 0x9e3779b1) ^ ++position
    return training({ ...mode, seed }, () => {
      const result = loss(params, batch, memory)
      memory = result.memory ?? memory
      return result.loss
    })
  }
  const differentiate = batches.length === 1 ? valueAndGrad(lossOf(batches[0]!)) : accumulate(batches, weightOf, lossOf)
  const { value, grads } = differentiate(state.params)
  return { loss: scalarOf(value), grads, memory, position }
}

/**
 * One step: the next state, with the loss and the norm before it. The state given is consumed. Throws an `InternVLError` when the
 * loss or its gradient is not finite; the state is then as it was, and still the caller's.
 */
export const takeStep = <P, B, S>(state: TrainState<P, S>, batches: readonly B[], options: TrainOptions<P, B, S>) => {
  const { loss, grads, memory, position } = gradient(state, batches, options)
  const { norm, factor } = clipFactor(options.maxNorm ?? Number.POSITIVE_INFINITY)(grads)
  const step = state.step + 1
  if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
    disposeParams(grads)
    const message = `step ${step}: the loss is ${loss}, the gradient's norm ${norm}; nothing was changed by this step. Try a lower rate or a longer warm-up, and look at the data.`
    throw new InternVLError([issue('LossNotFinite', message, { step, loss, norm })])
  }
  const next = options.optimizer.update(state.params, grads, state.optimizer, { consume: true, gradScale: factor })
  return { state: { params: next.params, optimizer: next.state, step, position, memory }, loss, norm }
}

/** The next `n` batches, fewer where the data ends, and how many between them could not be made. */
const take = async <B>(source: AsyncIterator<B | undefined> | Iterator<B | undefined>, n: number) => {
  const taken: B[] = []
  let missing = 0
  while (taken.length < n) {
    const next = await source.next()
    if (next.done) break
    if (next.value === undefined) missing++
    else taken.push(next.value)
  }
  return { taken: taken as readonly B[], missing }
}

const iterate = <A>(source: AsyncIterable<A> | Iterable<A>): AsyncIterator<A> | Iterator<A> =>
  Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()

const freeing = <B, A>(batches: readonly B[], dispose: (batch: B) => void, use: () => A): A => {
  try {
    return use()
  } finally {
    for (const batch of batches) dispose(batch)
  }
}

/**
 * Trains: yields what each step was like, with the state after it. A state is good until the next is asked for, which consumes
 * it; the last one, also when it throws or is left early, is the caller's to dispose. Throws as `takeStep`.
 *
 * `for await (const { step, loss, state } of train(initialState(params, optimizer), batches, { loss, optimizer, steps: 100 })) …`
 */
export async function* train<P, B, S = AdamWState>(
  initial: TrainState<P, S>,
  batches: Batches<B>,
  options: TrainOptions<P, B, S>
): AsyncGenerator<StepReport<P, S>, void, void> {
  const { steps = Infinity, accumulation = 1, tokensOf = () => 0, rate = () => 0 } = options
  const { disposeBatch = (batch: B) => tf.dispose(batch as tf.TensorContainer) } = options
  const source = iterate(batches(initial.position))
  let state = initial
  try {
    while (state.step < steps) {
      const begun = performance.now()
      await setImmediate() // messages and signals come through between steps
      const { taken, missing } = await take(source, accumulation)
      if (taken.length === 0) return
      const from = { ...state, position: state.position + missing } // what is missing has a place in the data
      const tokens = taken.reduce((n, batch) => n + tokensOf(batch), 0)
      const { loss, norm, state: next } = freeing(taken, disposeBatch, () => takeStep(from, taken, options))
      const seconds = (performance.now() - begun) / 1000
      const report = { step: next.step, loss, norm, rate: rate(state.step), tokens, seconds }
      state = next
      yield { ...report, state }
    }
  } finally {
    await source.return?.()
  }
}
