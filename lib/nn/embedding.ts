import { module } from '../module.js'
import { dequantizePacked, formatOf, type StoredWeight } from '../quantization/formats.js'
import { tf } from '../tf.js'
import { weight } from './init.js'
import { affine, type OnLastAxis } from './linear.js'

/** Ids `[B, L]` to vectors `[B, L, features]`; `attend` is the tied output head of the same weight. */
export interface Embedding {
  (ids: tf.Tensor2D): tf.Tensor3D
  /** `h Wᵀ`: `[…, features] → […, vocabulary]`, the logits of a tied head. */
  readonly attend: OnLastAxis
}

/** An embedding of `vocabulary` ids. The weight is `[vocabulary, features]`, as in `torch.nn.Embedding`, and may be quantized. */
export const embedding = (vocabulary: number, features: number) =>
  module({ weight: weight<StoredWeight>(vocabulary, features) }, (self): Embedding => {
    const attend: OnLastAxis = (h) => affine(h, self.weight)
    const { format, tensor } = formatOf(self.weight)
    const lookUp = (ids: tf.Tensor2D): tf.Tensor3D => {
      const rows = tf.gather(tensor, ids) as tf.Tensor as tf.Tensor3D
      return format === 'float32' ? rows : dequantizePacked(format, rows, features)
    }
    return Object.assign(lookUp, { attend })
  })
