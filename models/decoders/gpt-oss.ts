import { module } from '../../lib/module.js'
import { mixture, topK } from '../../lib/nn/experts.js'
import { attentionBranch } from '../../lib/nn/fused-attention.js'
import { normal, zeros } from '../../lib/nn/init.js'
import { linear } from '../../lib/nn/linear.js'
import type { RmsNorm } from '../../lib/nn/norm.js'
import { tf } from '../../lib/tf.js'
import type { GptOssConfig } from '../config/parse-config.js'
import { decoder, decoderLayer, type Hidden, type Routed, type SelfAttention, windowOf } from './decoder.js'

/** Self-attention in which each head may also look at nothing: its learnt sink joins the softmax. Source: `GptOssAttention`. */
export const gptOssAttention = (c: GptOssConfig, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = windowOf(c, index)
  return module(
    {
      q_proj: linear(D, H * K, { bias }),
      k_proj: linear(D, G * K, { bias }),
      v_proj: linear(D, G * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias }),
      sinks: normal<tf.Rank.R1>(H)
    },
    (self): SelfAttention =>
      (x, norm, context) =>
        attentionBranch(x, norm, self, context.cache, { ...context, heads: H, keyHeads: G, window, sinks: self.sinks })
  )
}

/** One of the tensors stacked along the first axis: `[E, …] → […]`. */
const stacked = <T extends tf.Tensor>(all: tf.Tensor, index: number): T => {
  const [, ...shape] = all.shape
  return all.slice([index], [1]).reshape(shape)
}

/**
 * `down((up + 1) ⊙ gate · σ(α · gate))` with gate at most, and up within, the limit. All E experts are stacked; columns of
 * gate and up take turns, and weights are `[in, out]`. A call is one expert's: `[n, D] → [n, D]`. Source: `GptOssExperts`.
 */
export const gptOssExperts = (c: GptOssConfig) => {
  const { hiddenSize: D, intermediateSize: I, numExperts: E, swigluAlpha: alpha, swigluLimit: limit } = c
  return module(
    {
      gate_up_proj: normal<tf.Rank.R3>(E, D, 2 * I),
      gate_up_proj_bias: zeros<tf.Rank.R2>(E, 2 * I),
      down_proj: normal<tf.Rank.R3>(E, I, D),
      down_proj_bias: zeros<tf.Rank.R2>(E, D)
    },
    (self) =>
      (e: number, x: tf.Tensor2D): tf.Tensor2D => {
        const both = tf.matMul(x, stacked<tf.Tensor2D>(self.gate_up_proj, e)).add(stacked(self.gate_up_proj_bias, e))
        const [gate, up] = tf.unstack(both.reshape([-1, I, 2]), 2) as [tf.Tensor2D, tf.Tensor2D]
        const clamped = gate.minimum<tf.Tensor2D>(limit)
        const glu = clamped.mul(clamped.mul(alpha).sigmoid())
        const inner: tf.Tensor2D = up.clipByValue(-limit, limit).add(1).mul(glu)
        return tf.matMul(inner, stacked<tf.Tensor2D>(self.down_proj, e)).add(stacked(self.down_proj_bias, e))
      }
  )
}

/** Each token to the k experts that the router scores highest, weighted by a softmax among those. Source: `GptOssMLP`. */
export const gptOssMlp = (c: GptOssConfig) => {
  const { hiddenSize: D, numExperts: E, numExpertsPerToken: k } = c
  return module(
    { router: linear(D, E, { packable: false }), experts: gptOssExperts(c) },
    (self) =>
      (x: Hidden, norm: RmsNorm): Routed => {
        const tokens = norm(x).reshape<tf.Tensor2D>([-1, D])
        const routerLogits = self.router(tokens)
        const { indices, values } = topK(routerLogits, k)
        const mixed = mixture(tokens, { experts: indices, weights: tf.softmax(values) }, self.experts)
        return { hidden: x.add(mixed.reshape(x.shape)), routerLogits }
      }
  )
}

/** GPT-OSS. Source: `GptOssModel` (transformers 5.23). */
export const gptOssDecoder = (c: GptOssConfig) => decoder(c, (index) => decoderLayer(c, gptOssAttention(c, index), gptOssMlp(c)))
