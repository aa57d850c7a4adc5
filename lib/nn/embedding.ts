import { module } from '../module.js'
import { hasKernel, runKernel } from '../ops/kernel.js'
import { dequantizePacked, formatOf } from '../quantization/formats.js'
import { expectAxes } from '../shape.js'
import { tf } from '../tf.js'
import { weight } from './init.js'
import { affine, isLora, type OnLastAxis, type Weight } from './linear.js'

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
  module({ weight: weight<Weight>(vocabulary, features) }, (self): Embedding => {
    const attend: OnLastAxis = (h) => affine(h, self.weight)
    const lora = isLora(self.weight) ? self.weight : undefined
    const { format, tensor } = formatOf(isLora(self.weight) ? self.weight.base : self.weight)
    const storedRows = (weight: tf.Tensor2D, ids: tf.Tensor2D, V: number): tf.Tensor3D => {
      if (format !== 'float32' && hasKernel('GatherRows'))
        return runKernel('GatherRows', { weight, ids }, { format, columns: features })
      const found = gatherRows(weight, ids, V)
      return format === 'float32' ? found : dequantizePacked(format, found, features)
    }
    const lookUp = (ids: tf.Tensor2D): tf.Tensor3D => {
      const { V } = expectAxes('embedding', { weight: [tensor, 'V D'], ids: [ids, 'B L', 'int32'] }) as Record<'V', number>
      const rows = storedRows(tensor, ids, V)
      if (!lora) return rows
      // the rows of B A are those of B, times A
      return rows.add(affine(gatherRows(lora.lora_B, ids, V), tf.transpose(lora.lora_A)).mul(lora.scaling))
    }
    return Object.assign(lookUp, { attend })
  })
