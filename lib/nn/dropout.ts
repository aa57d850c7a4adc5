import { nextSeed, trainingOptions } from '../autograd/train-mode.js'
import { tf } from '../tf.js'

/** Ones over `1 − rate` and zeros, zeros with probability `rate`. Source: the finaliser of MurmurHash3 over a counter. */
const mask = (size: number, rate: number, seed: number): Float32Array => {
  const [kept, bound] = [1 / (1 - rate), rate * 2 ** 32]
  const values = new Float32Array(size)
  for (let i = 0; i < size; i++) {
    let h = (Math.imul(i + 1, 0x9e3779b1) ^ seed) | 0
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
    if ((h ^ (h >>> 16)) >>> 0 >= bound) values[i] = kept
  }
  return values
}

const checked = (rate: number): number => {
  if (!(rate >= 0 && rate < 1)) throw new RangeError(`dropout: the rate must be at least 0 and below 1, got ${rate}`)
  return rate
}

/** Entries set to 0 with probability `rate` while training, the others larger for it; else `x` itself. Source: `torch.nn.Dropout`. */
export const dropout = <R extends tf.Rank>(x: tf.Tensor<R>, rate = trainingOptions()?.dropout ?? 0): tf.Tensor<R> =>
  trainingOptions() && checked(rate) > 0 ? x.mul(tf.tensor(mask(x.size, rate, nextSeed()), x.shape)) : x

/**
 * A residual branch `[B, …]`, left out for some samples while training, larger for the others; else the branch itself. `share`
 * is the layer's part of the rate: 0 for the first layer, 1 for the last. Source: Huang et al. 2016; timm's `DropPath`.
 */
export const dropPath = <R extends tf.Rank>(branch: tf.Tensor<R>, share: number): tf.Tensor<R> => {
  const rate = checked((trainingOptions()?.dropPath ?? 0) * share)
  if (rate === 0) return branch
  const [B, ...rest] = branch.shape
  return branch.mul(tf.tensor(mask(B!, rate, nextSeed()), [B!, ...rest.map(() => 1)]))
}
