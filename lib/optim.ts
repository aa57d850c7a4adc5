import { mapParams, namedParameters } from './params.js'
import type { Schedule } from './schedule.js'
import { tf } from './tf.js'

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

/** AdamW: Adam with decoupled weight decay. Source: Loshchilov & Hutter 2019; `torch.optim.AdamW` and its defaults. */
export const adamW = (options: AdamWOptions): Optimizer<AdamWState> => {
  const { learningRate, rateFactor = () => 1, beta1 = 0.9, beta2 = 0.999 } = options
  const { eps = 1e-8, weightDecay = 0.01, decays = () => true } = options
  const average = (old: tf.Tensor, fresh: tf.Tensor, beta: number) => old.mul(beta).add(fresh.mul(1 - beta))
  return {
    init: (params) => ({ step: 0, first: zerosByPath(params), second: zerosByPath(params) }),
    update: (params, grads, state, { consume = false } = {}) => {
      const step = state.step + 1
      const gradients = new Map(namedParameters(grads))
      const base = typeof learningRate === 'number' ? learningRate : learningRate(state.step)
      const correction = Math.sqrt(1 - beta2 ** step)
      const first: Record<string, tf.Tensor> = {}
      const second: Record<string, tf.Tensor> = {}
      const updated = mapParams((leaf, path) => {
        const [g, m, v] = [gradients.get(path)!, state.first[path]!, state.second[path]!]
        const rate = base * rateFactor(path)
        const [newLeaf, newFirst, newSecond] = tf.tidy((): tf.Tensor[] => {
          const [m1, v1] = [average(m, g, beta1), average(v, g.square(), beta2)]
          const decayed = decays(path) ? leaf.mul(1 - rate * weightDecay) : leaf
          return [decayed.sub(m1.mul(rate / (1 - beta1 ** step)).div(v1.sqrt().div(correction).add(eps))), m1, v1]
        })
        if (consume) tf.dispose([leaf, g, m, v])
        first[path] = newFirst!
        second[path] = newSecond!
        return newLeaf!
      })(params)
      return { params: updated, state: { step, first, second } }
    }
  }
}

/** L2 norm of a whole gradient tree. */
export const globalNorm = (grads: unknown): number =>
  tf.tidy(() => {
    const squares = namedParameters(grads).map(([, g]) => g.square().sum())
    return squares.length === 0 ? 0 : Math.sqrt(tf.stack(squares).sum().dataSync()[0]!)
  })

/** Scales a gradient tree down so that its global norm is at most `maxNorm`. A new tree. Source: `torch.nn.utils.clip_grad_norm_`. */
export const clipByGlobalNorm =
  (maxNorm: number) =>
  <P>(grads: P): { readonly grads: P; readonly norm: number } => {
    const norm = globalNorm(grads)
    const factor = Math.min(1, maxNorm / (norm + 1e-6))
    return { grads: mapParams((g) => tf.tidy(() => g.mul(factor)))(grads), norm }
  }
