import { fused } from '../ops/fused.js'
import { mapParams, namedParameters, parameterGroups } from '../params.js'
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
   * Whether `update` disposes the old parameters, gradients and state, each group of leaves as soon as its successors exist: a step then
   * needs memory for one more group instead of a second copy of all. The caller must not use the old tensors afterwards.
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

/** Coefficients of one step. `oneMinusBeta1` and `oneMinusBeta2` are `1 − beta` in double precision: in float32 the difference loses digits. */
interface Coefficients {
  readonly gradScale: number
  readonly beta1: number
  readonly oneMinusBeta1: number
  readonly beta2: number
  readonly oneMinusBeta2: number
  /** Root of the bias correction of the second moment. */
  readonly secondCorrection: number
  readonly eps: number
}

/** A parameter, its gradient and moments before a step. */
interface Leaf {
  readonly leaf: tf.Tensor
  readonly gradient: tf.Tensor
  readonly first: tf.Tensor
  readonly second: tf.Tensor
  /** Factor of weight decay. */
  readonly decay: number
  /** The learning rate divided by the bias correction of the first moment. */
  readonly stepSize: number
}

/** Throws a `ShapeError` unless a gradient or moment is a tensor of the parameter's shape. */
const expectShapeOf = (leaf: tf.Tensor, path: string, name: string, tensor: tf.Tensor | undefined): void => {
  if (!tensor || !tf.util.arraysEqual(tensor.shape, leaf.shape))
    expectAxes(`adamW: ${path}`, { [name]: [tensor, leaf.shape.join(' ')] })
}

/** The parameters after a step, then all first moments, then all second moments. */
const step = (leaves: readonly Leaf[], c: Coefficients): readonly tf.Tensor[] =>
  tf.tidy(() => {
    const rates = tf.tensor2d(
      leaves.flatMap(({ decay, stepSize }) => [decay, stepSize]),
      [leaves.length, 2]
    )
    const inputs: Record<string, tf.Tensor> = {} // of hundreds of leaves: written one by one, without an array for each
    for (const [i, { leaf, gradient, first, second }] of leaves.entries()) {
      inputs[`leaf ${i}`] = leaf
      inputs[`gradient ${i}`] = gradient
      inputs[`first ${i}`] = first
      inputs[`second ${i}`] = second
    }
    return fused('AdamW', { rates, ...inputs }, { ...c }, () => {
      const results = leaves.map(({ leaf, gradient, first, second, decay, stepSize }) => {
        const g = c.gradScale === 1 ? gradient : gradient.mul(c.gradScale)
        const m = first.mul(c.beta1).add(g.mul(c.oneMinusBeta1))
        const v = second.mul(c.beta2).add(g.square().mul(c.oneMinusBeta2))
        return [leaf.mul(decay).sub(m.mul(stepSize).div(v.sqrt().div(c.secondCorrection).add(c.eps))), m, v] as const
      })
      return [0, 1, 2].flatMap((i) => results.map((result) => result[i]!))
    }) as tf.Tensor[]
  })

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
      const coefficients = { ...betas, gradScale, secondCorrection: Math.sqrt(1 - beta2 ** stepNumber) }
      const leafOf = ([path, leaf]: readonly [string, tf.Tensor]): Leaf => {
        const [gradient, first, second] = [gradients.get(path)!, state.first[path]!, state.second[path]!]
        expectShapeOf(leaf, path, 'gradient', gradient)
        expectShapeOf(leaf, path, 'first moment', first)
        expectShapeOf(leaf, path, 'second moment', second)
        const rate = base * learningRateFactor(path)
        const decay = decays(path) ? 1 - rate * weightDecay : 1
        return { leaf, gradient, first, second, decay, stepSize: rate / (1 - beta1 ** stepNumber) }
      }
      const after: Record<'leaf' | 'first' | 'second', Record<string, tf.Tensor>> = { leaf: {}, first: {}, second: {} }
      for (const group of parameterGroups(params)) {
        const leaves = group.map(leafOf)
        const results = step(leaves, coefficients)
        for (const [i, [path]] of group.entries()) {
          after.leaf[path] = results[i]!
          after.first[path] = results[group.length + i]!
          after.second[path] = results[2 * group.length + i]!
        }
        if (consume)
          for (const { leaf, gradient, first, second } of leaves) for (const x of [leaf, gradient, first, second]) x.dispose()
      }
      const updated = mapParams((_, path) => after.leaf[path]!)(params)
      return { params: updated, state: { step: stepNumber, first: after.first, second: after.second } }
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
