import { module } from '../module.js'
import { dequantizePacked, formatOf, type StoredWeight } from '../quantization/formats.js'
import { expectAxes } from '../shape.js'
import { tf } from '../tf.js'
import { weight } from './init.js'
import { affine, type OnLastAxis } from './linear.js'

/** Ids `[B, L]` to vectors `[B, L, features]`; `attend` is the tied output head of the same weight. */
export interface Embedding {
  (ids: tf.Tensor2D): tf.Tensor3D
  /** `h Wᵀ`: `[…, features] → […, vocabulary]`, the logits of a tied head. */
  readonly attend: OnLastAxis
}

/** The engine finds ids outside the weight; the error of a plain operation becomes a `RangeError`. */
const gatherRows = (weight: tf.Tensor2D, ids: tf.Tensor2D, V: number): tf.Tensor3D => {
  try {
    return tf.gather(weight, ids) as tf.Tensor as tf.Tensor3D
  } catch (error) {
    if (!(error instanceof Error && /index value|not in \[/.test(error.message))) throw error
    throw new RangeError(`embedding: ids: an id is not in [0, ${V})`, { cause: error })
  }
}

/** An embedding of `vocabulary` ids. The weight is `[vocabulary, features]`, as in `torch.nn.Embedding`, and may be quantized. */
export const embedding = (vocabulary: number, features: number) =>
  module({ weight: weight<StoredWeight>(vocabulary, features) }, (self): Embedding => {
    const attend: OnLastAxis = (h) => affine(h, self.weight)
    const { format, tensor } = formatOf(self.weight)
    const lookUp = (ids: tf.Tensor2D): tf.Tensor3D => {
      const { V } = expectAxes('embedding', { weight: [tensor, 'V D'], ids: [ids, 'B L', 'int32'] }) as Record<'V', number>
      const rows = gatherRows(tensor, ids, V)
      return format === 'float32' ? rows : dequantizePacked(format, rows, features)
    }
    return Object.assign(lookUp, { attend })
  })
