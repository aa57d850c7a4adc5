import { fused } from '../ops/fused.js'
import { mapParams, namedParameters } from '../params.js'
import { tf } from '../tf.js'
import type { Schedule } from './schedule.js'

/**
 * An optimizer as two pure functions. `update` gives new parameters and a new state; the old ones stay their owner's, who
 * disposes them: `disposeParams([params, grads, state.first, state.second])`. Absent leaves of a partial tree stay absent.
 */
export interface Optimizer<S> {
  readonly init: <P>(params: P) => S
  readonly update: <P>(params: P, grads: P, state: S, options?: UpdateOptions) => { readonly params: P; readonly state: S }
}

export interface UpdateOptions {
  /**
   * The caller hands over the old parameters, gradients and state: each leaf is disposed as soon as its successor is there, so
   * that a step needs memory for one leaf more, not for a second copy of all. None of them may be used afterwards.
   */
  readonly consume?: boolean
  /** A factor on all gradients: that of `clipFactor`, one over a loss's scale. 1 by default. */
  readonly gradScale?: number
}

export interface AdamWOptions {
  /** The same for all steps, or that of each, counted from 0. */
  readonly learningRate: number | Schedule
  /** A parameter's own factor on the rate, by its path: layer-wise decay, slower parts. 1 by default. */
  readonly rateFactor?: (path: string) => number
  readonly beta1?: number
  readonly beta2?: number
  readonly eps?: number
  readonly weightDecay?: number
  /** Whether a parameter decays, by its path; all by default, as in PyTorch. `exceptNormsAndBiases` is Transformers' choice. */
  readonly decays?: (path: string) => boolean
}

/** First and second moments by path, and the number of steps taken. */
export interface AdamWState {
  readonly step: number
  readonly first: Readonly<Record<string, tf.Tensor>>
  readonly second: Readonly<Record<string, tf.Tensor>>
}

/** Which parameters weight decay is for. Source: `Trainer.get_decay_parameter_names` (transformers 5.23). */
export const exceptNormsAndBiases = (path: string): boolean => !/bias|layernorm|rmsnorm|(^|\.|_)norm(\.|$)/.test(path)

const zerosByPath = (params: unknown): Readonly<Record<string, tf.Tensor>> =>
  Object.fromEntries(namedParameters(params).map(([path, leaf]) => [path, tf.zerosLike(leaf)]))

/** The numbers of one step for one parameter; float32 has `1 − beta` less exactly than it has the difference. */
interface Coefficients {
  readonly scale: number
  readonly beta1: number
  readonly rest1: number
  readonly beta2: number
  readonly rest2: number
  /** What weight decay leaves. */
  readonly keep: number
  /** The learning rate, over the correction of the first moment; the root of that of the second. */
  readonly rate: number
  readonly correction: number
  readonly eps: number
}

/** A parameter, its first and its second moment, after a step. */
type Stepped = readonly [leaf: tf.Tensor, first: tf.Tensor, second: tf.Tensor]

const step = (leaf: tf.Tensor, gradient: tf.Tensor, first: tf.Tensor, second: tf.Tensor, c: Coefficients): Stepped =>
  tf.tidy(
    () =>
      fused('AdamW', { leaf, gradient, first, second }, { ...c }, (given): Stepped => {
        const g = c.scale === 1 ? given.gradient : given.gradient.mul(c.scale)
        const m = given.first.mul(c.beta1).add(g.mul(c.rest1))
        const v = given.second.mul(c.beta2).add(g.square().mul(c.rest2))
        return [given.leaf.mul(c.keep).sub(m.mul(c.rate).div(v.sqrt().div(c.correction).add(c.eps))), m, v]
      }) as unknown as tf.Tensor[]
  ) as unknown as Stepped

/** AdamW: Adam with decoupled weight decay. Source: Loshchilov & Hutter 2019; `torch.optim.AdamW` and its defaults. */
export const adamW = (options: AdamWOptions): Optimizer<AdamWState> => {
  const { learningRate, rateFactor = () => 1, beta1 = 0.9, beta2 = 0.999 } = options
  const { eps = 1e-8, weightDecay = 0.01, decays = () => true } = options
  const betas = { beta1, rest1: 1 - beta1, beta2, rest2: 1 - beta2, eps }
  return {
    init: (params) => ({ step: 0, first: zerosByPath(params), second: zerosByPath(params) }),
    update: (params, grads, state, { consume = false, gradScale: scale = 1 } = {}) => {
      const taken = state.step + 1
      const gradients = new Map(namedParameters(grads))
      const base = typeof learningRate === 'number' ? learningRate : learningRate(state.step)
      const corrected = { ...betas, scale, correction: Math.sqrt(1 - beta2 ** taken) }
      const first: Record<string, tf.Tensor> = {}
      const second: Record<string, tf.Tensor> = {}
      const updated = mapParams((leaf, path) => {
        const [g, m, v] = [gradients.get(path)!, state.first[path]!, state.second[path]!]
        const rate = base * rateFactor(path)
        const keep = decays(path) ? 1 - rate * weightDecay : 1
        const [newLeaf, newFirst, newSecond] = step(leaf, g, m, v, { ...corrected, keep, rate: rate / (1 - beta1 ** taken) })
        if (consume) tf.dispose([leaf, g, m, v])
        first[path] = newFirst
        second[path] = newSecond
        return newLeaf
      })(params)
      return { params: updated, state: { step: taken, first, second } }
    }
  }
}

/** L2 norm of a whole gradient tree. */
export const globalNorm = (grads: unknown): number =>
  tf.tidy(() => {
    const all = Object.fromEntries(namedParameters(grads))
    if (Object.keys(all).length === 0) return 0
    const norm = fused('GlobalNorm', all, {}, (given) => {
      const squares = Object.values(given).map((g) => g.square().sum())
      return tf.stack(squares).sum().sqrt()
    })
    return norm.dataSync()[0]!
  })

/**
 * The norm of a gradient tree, and the factor that brings it down to `maxNorm` where it is above: `gradScale` of an optimizer's
 * update, which needs no second tree. Source: `torch.nn.utils.clip_grad_norm_`.
 */
export const clipFactor =
  (maxNorm: number) =>
  (grads: unknown): { readonly norm: number; readonly factor: number } => {
    const norm = globalNorm(grads)
    return { norm, factor: Math.min(1, maxNorm / (norm + 1e-6)) }
  }

/** Scales a gradient tree down so that its global norm is at most `maxNorm`. A new tree. */
export const clipByGlobalNorm =
  (maxNorm: number) =>
  <P>(grads: P): { readonly grads: P; readonly norm: number } => {
    const { norm, factor } = clipFactor(maxNorm)(grads)
    return { grads: mapParams((g) => tf.tidy(() => g.mul(factor)))(grads), norm }
  }
