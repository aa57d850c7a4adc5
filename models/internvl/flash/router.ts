import { module } from '../../../lib/module.js'
import { activations } from '../../../lib/nn/activation.js'
import { mergeHeads, splitHeads } from '../../../lib/nn/attention/attention.js'
import { normal, zeros } from '../../../lib/nn/init.js'
import { affine, linear } from '../../../lib/nn/linear.js'
import { layerNorm } from '../../../lib/nn/norm.js'
import { tf } from '../../../lib/tf.js'
import type { InternVLConfig } from '../../config/model-config.js'

const EPS = 1e-5 // the default of PyTorch's LayerNorm
const HEADS = 16
const exact = { quantizable: false } // small differences of a score decide whether a tile is compressed

/** `torch.nn.MultiheadAttention`: queries `[T, Q, D]` over tokens `[T, L, D]`, → `[T, Q, D]`. */
const multiheadAttention = (D: number) =>
  module(
    { in_proj_weight: normal<tf.Rank.R2>(3 * D, D), in_proj_bias: zeros<tf.Rank.R1>(3 * D), out_proj: linear(D, D, exact) },
    (self) =>
      (queries: tf.Tensor3D, tokens: tf.Tensor3D): tf.Tensor3D => {
        const weights = tf.split(self.in_proj_weight, 3, 0) as tf.Tensor2D[]
        const biases = tf.split(self.in_proj_bias, 3, 0) as tf.Tensor1D[]
        const heads = (x: tf.Tensor3D, i: number) => splitHeads(affine(x, weights[i]!, biases[i]!), HEADS)
        const scores = tf.matMul(heads(queries, 0).mul((D / HEADS) ** -0.5), heads(tokens, 1), false, true)
        return self.out_proj(mergeHeads(tf.matMul(tf.softmax(scores), heads(tokens, 2)) as tf.Tensor4D))
      }
  )

/**
 * One vector for each tile, `[T, L, D] → [T, 1, D]`: a learned query attends to the patches once through `attn1`, then three times
 * through `attn2`. `attn3`, `attn4` and their norms are in the published files and take no part.
 */
const attentionPooling = (D: number) =>
  module(
    {
      query_token: normal<tf.Rank.R2>(1, D),
      attn1: multiheadAttention(D),
      norm1: layerNorm(D, EPS),
      attn2: multiheadAttention(D),
      norm2: layerNorm(D, EPS),
      attn3: multiheadAttention(D),
      norm3: layerNorm(D, EPS),
      attn4: multiheadAttention(D),
      norm4: layerNorm(D, EPS)
    },
    (self) =>
      (patches: tf.Tensor3D): tf.Tensor3D => {
        const query = tf.tile(self.query_token.reshape<tf.Tensor3D>([1, 1, D]), [patches.shape[0], 1, 1])
        let pooled = self.norm1(self.attn1(query, patches))
        for (let i = 0; i < 3; i++) pooled = self.norm2(self.attn2(pooled, patches))
        return pooled
      }
  )

/** Linear, GELU, linear, norm; the numbers are those of the published `nn.Sequential`. */
const gatingBlock = (D: number) =>
  module(
    { 0: linear(D, 4 * D, exact), 3: linear(4 * D, D, exact), 5: layerNorm(D, EPS) },
    (self) =>
      (x: tf.Tensor3D): tf.Tensor3D =>
        self[5](self[3](activations.gelu(self[0](x))))
  )

/** The probability of each pooled tile that a quarter of its tokens suffices: `[T, 1, D] → [T]`. */
const gating = (D: number) =>
  module(
    {
      block1: gatingBlock(D),
      block2: gatingBlock(D),
      block3: gatingBlock(D),
      block4: gatingBlock(D),
      gate: module(
        { 0: layerNorm(D, EPS), 1: linear(D, 2, exact) },
        (self) =>
          (x: tf.Tensor3D): tf.Tensor3D =>
            self[1](self[0](x))
      )
    },
    (self) =>
      (pooled: tf.Tensor3D): tf.Tensor1D => {
        const blocks = [self.block1, self.block2, self.block3, self.block4]
        const x = blocks.reduce((sum, block) => sum.add(block(sum)), pooled)
        return tf.softmax(self.gate(x)).slice([0, 0, 0], [-1, 1, 1]).reshape([-1])
      }
  )

/** The projector of compressed tiles: norm, linear, GELU, linear, GELU, linear, `[T, N / 4, 16·Dv] → [T, N / 4, D]`. */
const quarterProjector = (inputs: number, D: number) =>
  module(
    { 0: layerNorm(inputs, EPS), 1: linear(inputs, 2 * D), 4: linear(2 * D, 2 * D), 7: linear(2 * D, D) },
    (self) =>
      (x: tf.Tensor3D): tf.Tensor3D =>
        self[7](activations.gelu(self[4](activations.gelu(self[1](self[0](x))))))
  )

/**
 * The visual resolution router (ViR) of InternVL3.5-Flash, under the names of the published files.
 * Source: `InternVLChatModel` with `flash_mode` (OpenGVLab/InternVL3_5-8B-Flash).
 */
export const flashRouter = ({ visionConfig: { hiddenSize: Dv }, textConfig, downsampleRatio }: InternVLConfig) => ({
  pooling_before_gating: attentionPooling(Dv),
  gating: gating(Dv),
  mlp2: quarterProjector(Dv * Math.trunc(1 / downsampleRatio) ** 4, textConfig.hiddenSize)
})
