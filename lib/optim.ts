import { mapParams, namedParameters } from './params.js'
import { tf } from './tf.js'

/** An optimizer as two pure functions: `update` gives new parameters and a new state, and leaves the old to their owner. */
export interface Optimizer<S> {
  readonly init: <P>(params: P) => S
  readonly update: <P>(params: P, grads: P, state: S) => { readonly params: P; readonly state: S }
}

export interface AdamWOptions {
  readonly learningRate: number
  readonly beta1?: number
  readonly beta2?: number
  readonly eps?: number
  readonly weightDecay?: number
  /** Whether a parameter decays, by its path; all by default, as in PyTorch. */
  readonly decays?: (path: string) => boolean
}

/** First and second moments by path, and the number of steps taken. */
export interface AdamWState {
  readonly step: number
  readonly first: Readonly<Record<string, tf.Tensor>>
  readonly second: Readonly<Record<string, tf.Tensor>>
}

const zerosByPath = (params: unknown): Readonly<Record<string, tf.Tensor>> =>
  Object.fromEntries(namedParameters(params).map(([path, leaf]) => [path, tf.zerosLike(leaf)]))

/** AdamW: Adam with decoupled weight decay. Source: Loshchilov & Hutter 2019; `torch.optim.AdamW` and its defaults. */
export const adamW = (options: AdamWOptions): Optimizer<AdamWState> => {
  const { learningRate, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weightDecay = 0.01, decays = () => true } = options
  const average = (old: tf.Tensor, fresh: tf.Tensor, beta: number) => tf.tidy(() => old.mul(beta).add(fresh.mul(1 - beta)))
  return {
    init: (params) => ({ step: 0, first: zerosByPath(params), second: zerosByPath(params) }),
    update: (params, grads, state) => {
      const step = state.step + 1
      const gradients = new Map(namedParameters(grads))
      const moments = (old: AdamWState['first'], of: (g: tf.Tensor) => tf.Tensor, beta: number) =>
        Object.fromEntries(
          Object.entries(old).map(([path, m]) => [path, tf.tidy(() => average(m, of(gradients.get(path)!), beta))])
        )
      const first = moments(state.first, (g) => g, beta1)
      const second = moments(state.second, (g) => g.square(), beta2)
      const rate = learningRate / (1 - beta1 ** step)
      const correction = Math.sqrt(1 - beta2 ** step)
      const updated = mapParams((leaf, path) =>
        tf.tidy(() => {
          const decayed = decays(path) ? leaf.mul(1 - learningRate * weightDecay) : leaf
          return decayed.sub(first[path]!.mul(rate).div(second[path]!.sqrt().div(correction).add(eps)))
        })
      )(params)
      return { params: updated, state: { step, first, second } }
    }
  }
}

/** L2 norm of a whole gradient tree. */
export const globalNorm = (grads: unknown): number =>
  Math.sqrt(namedParameters(grads).reduce((sum, [, g]) => sum + tf.tidy(() => g.square().sum().dataSync()[0]!), 0))

/** Scales a gradient tree down so that its global norm is at most `maxNorm`. A new tree. Source: `torch.nn.utils.clip_grad_norm_`. */
export const clipByGlobalNorm =
  (maxNorm: number) =>
  <P>(grads: P): { readonly grads: P; readonly norm: number } => {
    const norm = globalNorm(grads)
    const factor = Math.min(1, maxNorm / (norm + 1e-6))
    return { grads: mapParams((g) => tf.tidy(() => g.mul(factor)))(grads), norm }
  }
