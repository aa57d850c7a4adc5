import type { Param } from '../module.js'
import { tf } from '../tf.js'

type Shape<R extends tf.Rank> = tf.ShapeMap[R]

const param = <R extends tf.Rank>(shape: Shape<R>, init: (shape: number[], seed: number) => tf.Tensor): Param<tf.Tensor<R>> => ({
  _tag: 'Param',
  shape,
  init: (seed) => init([...shape], seed) as tf.Tensor<R>
})

/** A vector of ones: gains of norms. */
export const ones = (features: number): Param<tf.Tensor1D> => param<tf.Rank.R1>([features], (s) => tf.ones(s))

/** A tensor of zeros: biases, class tokens, position embeddings. */
export const zeros = <R extends tf.Rank>(...shape: Shape<R>): Param<tf.Tensor<R>> =>
  param<R>(shape as Shape<R>, (s) => tf.zeros(s))

/** A vector of one constant: layer scale. */
export const constant = (features: number, value: number): Param<tf.Tensor1D> =>
  param<tf.Rank.R1>([features], (s) => tf.fill(s, value))

/** A weight `[out, in]` that may be quantized or have a LoRA update. Initialized as by `normal`. */
export const weight = <W>(out: number, inner: number): Param<W> => ({
  ...(normal<tf.Rank.R2>(out, inner) as unknown as Param<W>),
  quantizable: true
})

/** Normally distributed with standard deviation 0.02, Transformers' `initializer_range`. */
export const normal = <R extends tf.Rank>(...shape: Shape<R>): Param<tf.Tensor<R>> =>
  param<R>(shape as Shape<R>, (s, seed) => tf.randomNormal(s, 0, 0.02, 'float32', seed))
