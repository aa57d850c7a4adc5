import { fused } from '../ops/fused.js'
import type { tf } from '../tf.js'

/** `x + scale ⊙ branch`, scale over the last axis: a residual branch with layer scale. Source: Touvron et al. 2021 (CaiT). */
export const addScaled = <R extends tf.Rank>(x: tf.Tensor<R>, branch: tf.Tensor<R>, scale: tf.Tensor1D): tf.Tensor<R> =>
  fused('Residual', { x, branch, scale }, {}, (given) => given.x.add(given.branch.mul(given.scale)))
