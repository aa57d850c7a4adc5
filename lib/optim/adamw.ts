import { fused } from '../ops/fused.js'
import { mapParams, namedParameters } from '../params.js'
import { expectAxes } from '../shape.js'
import { tf } from '../tf.js'
import type { Schedule } from './schedule.js'

/**
 * An optimizer as two pure functions. `update` returns new parameters and a new state; the caller disposes the old ones: `disposeParams([params, grads, state.first, state.second])`. Absent leaves of a partial tree stay absent.
 */
export interface Optimizer<S> {
  readonly init: <P>(params: P) => S
  readonly update: <P>(params: P, grads: P, state: S, options?: UpdateOptions) => { readonly params: P; readonly state: S }
}

export interface UpdateOptions {
  /**
   * Whether `update` disposes the old parameters, gradients and state, each leaf as soon as its successor exists: a step then needs
   * memory for one more leaf instead of a second copy of all. The caller must not use the old tensors afterwards.
   */
  readonly consume?: boolean
  /** A factor on all gradients, as from `clipFactor` or loss scaling. 1 by default. */
  readonly gradScale?: number
}

export interface AdamWOptions {
  /** A constant, or a function of the step, counted from 0. */
  readonly learningRate: number | Schedule
  /** Factor on the learning rate of a parameter, by path: layer-wise decay. 1 by default. */
  readonly learningRateFactor?: (path: string) => number
  /** @deprecated Use `learningRateFactor`. */
  readonly rateFactor?: (path: string) => number
  readonly beta1?: number
  readonly beta2?: number
  readonly eps?: number
  readonly weightDecay?: number
  /** Whether weight decay applies to a parameter, by path; to all by default, as in PyTorch. `exceptNormsAndBiases` is Transformers' choice. */
  readonly decays?: (path: string) => boolean
}

/** First and second moments by path, and the number of completed steps. */
export interface AdamWState {
  readonly step: number
  readonly first: Readonly<Record<string, tf.Tensor>>
  readonly second: Readonly<Record<string, tf.Tensor>>
}

/** Whether a parameter is neither a norm's nor a bias, for `decays`. Source: `Trainer.get_decay_parameter_names` (transformers 5.24). */
export const exceptNormsAndBiases = (path: string): boolean => !/bias|layernorm|rmsnorm|(^|\.|_)norm(\.|$)/.test(path)

const zerosByPath = (params: unknown): Readonly<Record<string, tf.Tensor>> =>
  Object.fromEntries(namedParameters(params).map(([path, leaf]) => [path, tf.zerosLike(leaf)]))

/** Coefficients of one step for one parameter. `oneMinusBeta1` and `oneMinusBeta2` are `1 − beta` in double precision: in float32 the difference loses digits. */
interface Coefficients {
  readonly gradScale: number
  readonly beta1: number
  readonly oneMinusBeta1: number
  readonly beta2: number
  readonly oneMinusBeta2: number
  /** Factor of weight decay on the parameter. */
  readonly decay: number
  /** The learning rate divided by the bias correction of the first moment; `secondCorrection` is the root of the second's. */
  readonly stepSize: number
  readonly secondCorrection: number
  readonly eps: number
}

/** A parameter and both moments after a step. */
type StepResult = readonly [leaf: tf.Tensor, first: tf.Tensor, second: tf.Tensor]

const step = (leaf: tf.Tensor, gradient: tf.Tensor, first: tf.Tensor, second: tf.Tensor, c: Coefficients): StepResult =>
  tf.tidy(
    () =>
      fused('AdamW', { leaf, gradient, first, second }, { ...c }, (t): StepResult => {
        const g = c.gradScale === 1 ? t.gradient : t.gradient.mul(c.gradScale)
        const m = t.first.mul(c.beta1).add(g.mul(c.oneMinusBeta1))
        const v = t.second.mul(c.beta2).add(g.square().mul(c.oneMinusBeta2))
        return [t.leaf.mul(c.decay).sub(m.mul(c.stepSize).div(v.sqrt().div(c.secondCorrection).add(c.eps))), m, v]
      }) as unknown as tf.Tensor[]
  ) as unknown as StepResult

/** AdamW: Adam with decoupled weight decay. Source: Loshchilov & Hutter 2019; `torch.optim.AdamW` and its defaults. */
export const adamW = (options: AdamWOptions): Optimizer<AdamWState> => {
  const { learningRate, rateFactor, learningRateFactor = rateFactor ?? (() => 1), beta1 = 0.9, beta2 = 0.999 } = options
  const { eps = 1e-8, weightDecay = 0.01, decays = () => true } = options
  const betas = { beta1, oneMinusBeta1: 1 - beta1, beta2, oneMinusBeta2: 1 - beta2, eps }
  return {
    init: (params) => ({ step: 0, first: zerosByPath(params), second: zerosByPath(params) }),
    update: (params, grads, state, { consume = false, gradScale = 1 } = {}) => {
      const stepNumber = state.step + 1
      const gradients = new Map(namedParameters(grads))
      const base = typeof learningRate === 'number' ? learningRate : learningRate(state.step)
      const corrected = { ...betas, gradScale, secondCorrection: Math.sqrt(1 - beta2 ** stepNumber) }
      const first: Record<string, tf.Tensor> = {}
      const second: Record<string, tf.Tensor> = {}
      const updated = mapParams((leaf, path) => {
        const [g, m, v] = [gradients.get(path)!, state.first[path]!, state.second[path]!]
        for (const [name, tensor] of Object.entries({ gradient: g, 'first moment': m, 'second moment': v }))
          expectAxes(`adamW: ${path}`, { [name]: [tensor, leaf.shape.join(' ')] })
        const rate = base * learningRateFactor(path)
        const decay = decays(path) ? 1 - rate * weightDecay : 1
        const [newLeaf, newFirst, newSecond] = step(leaf, g, m, v, {
          ...corrected,
          decay,
          stepSize: rate / (1 - beta1 ** stepNumber)
        })
        if (consume) tf.dispose([leaf, g, m, v])
        first[path] = newFirst
        second[path] = newSecond
        return newLeaf
      })(params)
      return { params: updated, state: { step: stepNumber, first, second } }
    }
  }
}

/** L2 norm of a gradient tree. */
export const globalNorm = (grads: unknown): number =>
  tf.tidy(() => {
    const all = Object.fromEntries(namedParameters(grads))
    if (Object.keys(all).length === 0) return 0
    const norm = fused('GlobalNorm', all, {}, (t) => {
      const squares = Object.values(t).map((g) => g.square().sum())
      return tf.stack(squares).sum().sqrt()
    })
    return norm.dataSync()[0]!
  })

/**
 * The norm of a gradient tree, and the factor that reduces the norm to at most `maxNorm`. As `gradScale` of an update, the factor needs
 * no second tree. Source: `torch.nn.utils.clip_grad_norm_`.
 */
export const clipFactor =
  (maxNorm: number) =>
  (grads: unknown): { readonly norm: number; readonly factor: number } => {
    const norm = globalNorm(grads)
    return { norm, factor: Math.min(1, maxNorm / (norm + 1e-6)) }
  }

/** A new gradient tree, scaled so that its global norm is at most `maxNorm`. */
export const clipByGlobalNorm =
  (maxNorm: number) =>
  <P>(grads: P): { readonly grads: P; readonly norm: number } => {
    const { norm, factor } = clipFactor(maxNorm)(grads)
    return { grads: mapParams((g) => tf.tidy(() => g.mul(factor)))(grads), norm }
  }
