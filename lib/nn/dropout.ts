import { nextDropoutSeed, trainingOptions } from '../autograd/train-mode.js'
import { expectAxes } from '../shape.js'
import { tf } from '../tf.js'

/** A dropout mask: 0 with probability `rate`, else `1 / (1 − rate)`. Source: the finaliser of MurmurHash3 over a counter. */
const mask = (size: number, rate: number, seed: number): Float32Array => {
  const [scaled, bound] = [1 / (1 - rate), rate * 2 ** 32]
  const values = new Float32Array(size)
  for (let i = 0; i < size; i++) {
    let h = (Math.imul(i + 1, 0x9e3779b1) ^ seed) | 0
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
    if ((h ^ (h >>> 16)) >>> 0 >= bound) values[i] = scaled
  }
  return values
}

const checked = (rate: number): number => {
  if (!(rate >= 0 && rate < 1)) throw new RangeError(`dropout: the rate must be at least 0 and below 1, got ${rate}`)
  return rate
}

/** While training: sets entries to 0 with probability `rate` and scales the others by `1 / (1 − rate)`. In inference: `x` itself. Source: `torch.nn.Dropout`. */
export const dropout = <R extends tf.Rank>(x: tf.Tensor<R>, rate = trainingOptions()?.dropout ?? 0): tf.Tensor<R> =>
  trainingOptions() && checked(rate) > 0 ? x.mul(tf.tensor(mask(x.size, rate, nextDropoutSeed()), x.shape)) : x

/**
 * Stochastic depth of a residual branch `[B, …]`: while training the branch is dropped for some samples and scaled for the others. In
 * inference: the branch itself. `share` is the layer's fraction of the rate, 0 for the first layer and 1 for the last. Source: Huang et al. 2016; timm's `DropPath`.
 */
export const dropPath = <R extends tf.Rank>(branch: tf.Tensor<R>, share: number): tf.Tensor<R> => {
  const rate = checked((trainingOptions()?.dropPath ?? 0) * share)
  if (rate === 0) return branch
  expectAxes('dropPath', { branch: [branch, '… *'] })
  const [B, ...rest] = branch.shape
  return branch.mul(tf.tensor(mask(B!, rate, nextDropoutSeed()), [B!, ...rest.map(() => 1)]))
}
