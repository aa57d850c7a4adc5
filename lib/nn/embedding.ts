import { module } from '../module.js'
import { tf } from '../tf.js'
import { normal } from './init.js'
import { affine, type OnLastAxis } from './linear.js'

/** Ids `[B, L]` to vectors `[B, L, features]`; `attend` is the other way, a head tied to the same weight. */
export interface Embedding {
  (ids: tf.Tensor2D): tf.Tensor3D
  /** `h Wᵀ`: `[…, features] → […, vocabulary]`, the logits of a tied head. */
  readonly attend: OnLastAxis
}

/** A table of `vocabulary` vectors. Weight is `[vocabulary, features]`, as in `torch.nn.Embedding`. */
export const embedding = (vocabulary: number, features: number) =>
  module({ weight: normal<tf.Rank.R2>(vocabulary, features) }, (self): Embedding => {
    const attend: OnLastAxis = (h) => affine(h, self.weight)
    return Object.assign((ids: tf.Tensor2D) => tf.gather(self.weight, ids) as tf.Tensor as tf.Tensor3D, { attend })
  })
