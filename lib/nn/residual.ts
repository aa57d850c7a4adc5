import { fused } from '../ops/fused.js'
import type { tf } from '../tf.js'

/**
 * Key of the description that a residual branch carries for fused kernels. `selfAttention` and `gatedLinearUnit` attach a
 * description; `fuseLayer` reads the descriptions of a layer. A branch without one is correct, and runs op by op.
 */
export const fusible: unique symbol = Symbol('fusible')

/** `x + scale ⊙ branch`, with `scale` over the last axis: a residual branch with layer scale. Source: Touvron et al. 2021 (CaiT). */
export const residual = <R extends tf.Rank>(x: tf.Tensor<R>, branch: tf.Tensor<R>, scale: tf.Tensor1D): tf.Tensor<R> =>
  fused('ScaledResidual', { x, branch, scale }, {}, (t) => t.x.add(t.branch.mul(t.scale)))
