import { module } from '../module.js'
import { fused } from '../ops/fused.js'
import type { tf } from '../tf.js'
import type { OnLastAxis } from './activation.js'
import { ones, zeros } from './init.js'

/** `(x − E[x]) / √(Var[x] + eps) · weight + bias` over the last axis, `[…, features]`. */
export const layerNorm = (features: number, eps: number) =>
  module(
    { weight: ones(features), bias: zeros<tf.Rank.R1>(features) },
    (self): OnLastAxis =>
      (input) =>
        fused('LayerNorm', { x: input, weight: self.weight, bias: self.bias }, { eps }, ({ x, weight, bias }) => {
          const centred = x.sub(x.mean(-1, true))
          const variance = centred.square().mean(-1, true)
          return centred.mul(variance.add(eps).rsqrt()).mul(weight).add(bias)
        })
  )

/** The forward of an RMS norm, with its weight and epsilon for kernels that fuse the norm with a following product. */
export interface RmsNorm extends OnLastAxis {
  readonly weight: tf.Tensor1D
  readonly eps: number
}

/**
 * `x / √(E[x²] + eps) · weight` over the last axis, `[…, features]`; with merged heads, `[…, H·features]`, every head is normalized
 * separately. Source: Zhang & Sennrich 2019.
 */
export const rmsNorm = (features: number, eps: number) =>
  module({ weight: ones(features) }, (self): RmsNorm => {
    const forward: OnLastAxis = (input) =>
      fused('RmsNorm', { x: input, weight: self.weight }, { eps }, ({ x, weight }) => {
        const rows: tf.Tensor = x.shape.at(-1) === features ? x : x.reshape([...x.shape.slice(0, -1), -1, features])
        const y = rows.mul(rows.square().mean(-1, true).add(eps).rsqrt()).mul(weight)
        return rows === x ? (y as typeof x) : y.reshape<typeof x>(x.shape)
      })
    return Object.assign(forward, { weight: self.weight, eps })
  })

/** The identity in the place of an optional norm: no parameters, and the path stays (`nn.Identity`). */
export const noNorm = module({}, (): OnLastAxis => (x) => x.clone())
