import { module } from '../../lib/module.js'
import { activations } from '../../lib/nn/activation.js'
import { linear } from '../../lib/nn/linear.js'
import { layerNorm } from '../../lib/nn/norm.js'
import { ShapeError } from '../../lib/shape.js'
import type { tf } from '../../lib/tf.js'
import type { InternVLConfig } from '../config/model-config.js'

/**
 * Space-to-depth, `[T, h, w, C] → [T, h/s, w/s, C·s²]`: one image token then covers s × s patches, s = 1/downsampleRatio.
 * `v1` (InternVL 1.x) leaves the map transposed, `v2` does not. Throws a `ShapeError` if h or w is not divisible by s.
 * Source: `InternVLModel.pixel_shuffle` (transformers 5.24); `ps_version` of OpenGVLab's `modeling_internvl_chat`.
 */
export const pixelShuffle = (x: tf.Tensor4D, s: number, version: 'v1' | 'v2' = 'v2'): tf.Tensor4D => {
  const [T, h, w, C] = x.shape
  if (h % s !== 0 || w % s !== 0) throw new ShapeError(`pixelShuffle: ${h} x ${w} patches are not divisible by ${s}`)
  const order = version === 'v2' ? [0, 1, 3, 2, 4, 5] : [0, 3, 1, 2, 4, 5]
  const [rows, columns] = version === 'v2' ? [h / s, w / s] : [w / s, h / s]
  return x
    .reshape([T, h / s, s, w / s, s, C])
    .transpose(order)
    .reshape([T, rows, columns, C * s * s])
}

/** Layer norm, linear, activation, linear: `[T, N, 4·Dv] → [T, N, D]`. Source: `InternVLMultiModalProjector`. */
export const projector = ({ visionConfig, textConfig, downsampleRatio, projectorHiddenAct }: InternVLConfig) => {
  const inputs = visionConfig.hiddenSize * Math.trunc(1 / downsampleRatio) ** 2
  return module(
    {
      layer_norm: layerNorm(inputs, 1e-5), // the default of PyTorch
      linear_1: linear(inputs, textConfig.hiddenSize),
      linear_2: linear(textConfig.hiddenSize, textConfig.hiddenSize)
    },
    (self) =>
      (x: tf.Tensor3D): tf.Tensor3D =>
        self.linear_2(activations[projectorHiddenAct](self.linear_1(self.layer_norm(x))))
  )
}
