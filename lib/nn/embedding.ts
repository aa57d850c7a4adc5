import { module } from '../module.js'
import { formOf, type StoredWeight, unpackWords } from '../quantization/formats.js'
import { tf } from '../tf.js'
import { weight } from './init.js'
import { affine, type OnLastAxis } from './linear.js'

/** Ids `[B, L]` to vectors `[B, L, features]`; `attend` is the other way, a head tied to the same weight. */
export interface Embedding {
  (ids: tf.Tensor2D): tf.Tensor3D
  /** `h Wᵀ`: `[…, features] → […, vocabulary]`, the logits of a tied head. */
  readonly attend: OnLastAxis
}

/** A table of `vocabulary` vectors. Weight is `[vocabulary, features]`, as in `torch.nn.Embedding`, or a packed form of it. */
export const embedding = (vocabulary: number, features: number) =>
  module({ weight: weight<StoredWeight>(vocabulary, features) }, (self): Embedding => {
    const attend: OnLastAxis = (h) => affine(h, self.weight)
    const { form, tensor } = formOf(self.weight)
    const lookUp = (ids: tf.Tensor2D): tf.Tensor3D => {
      const rows = tf.gather(tensor, ids) as tf.Tensor as tf.Tensor3D
      return form === 'float32' ? rows : unpackWords(form, rows, features)
    }
    return Object.assign(lookUp, { attend })
  })
