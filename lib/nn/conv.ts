import { module } from '../module.js'
import { expectAxes, ShapeError } from '../shape.js'
import type { tf } from '../tf.js'
import { normal, zeros } from './init.js'
import { affine } from './linear.js'

/**
 * A linear layer on non-overlapping patches: a convolution whose stride is its kernel.
 * `[B, C, H, W] → [B, H/h · W/w, features]`, patches row by row; incomplete patches at the border are dropped.
 * Weight is `[features, C, h, w]`, as in `torch.nn.Conv2d`.
 */
export const conv2dPatches = (channels: number, features: number, [h, w]: readonly [number, number]) =>
  module(
    { weight: normal<tf.Rank.R4>(features, channels, h, w), bias: zeros<tf.Rank.R1>(features) },
    (self) =>
      (x: tf.Tensor4D): tf.Tensor3D => {
        expectAxes('conv2dPatches', { x: [x, `B ${channels} H W`] })
        const [B, C] = x.shape
        const [rows, columns] = [Math.floor(x.shape[2] / h), Math.floor(x.shape[3] / w)]
        if (rows === 0 || columns === 0)
          throw new ShapeError(`conv2dPatches: an image of ${x.shape[2]} x ${x.shape[3]} is smaller than a patch of ${h} x ${w}`)
        const isWhole = x.shape[2] === rows * h && x.shape[3] === columns * w
        const whole = isWhole ? x : x.slice([0, 0, 0, 0], [B, C, rows * h, columns * w])
        const patches = whole
          .reshape([B, C, rows, h, columns, w])
          .transpose([0, 2, 4, 1, 3, 5]) // [B, rows, columns, C, h, w]
          .reshape<tf.Tensor3D>([B, rows * columns, C * h * w])
        return affine(patches, self.weight.reshape([features, C * h * w]), self.bias)
      }
  )
