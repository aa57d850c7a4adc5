import { module } from '../../lib/module.js'
import { gatedUnit, linear } from '../../lib/nn/linear.js'
import type { RmsNorm } from '../../lib/nn/norm.js'
import type { tf } from '../../lib/tf.js'
import type { DecoderConfig, Qwen2Config } from '../config/parse-config.js'
import { decoder, decoderLayer, selfAttention, windowOf } from './decoder.js'

/** Grouped-query causal self-attention with rotary positions, `[B, L, D] → [B, L, D]`. Source: `Qwen2Attention`. */
export const qwen2Attention = (c: DecoderConfig, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = windowOf(c, index)
  return module(
    {
      q_proj: linear(D, H * K, { bias }),
      k_proj: linear(D, G * K, { bias }),
      v_proj: linear(D, G * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias })
    },
    (self) => selfAttention({ maps: self, heads: H, keyHeads: G, window })
  )
}

/** SwiGLU, `down(act(gate(x)) ⊙ up(x))`, over the last axis; given a norm, the branch `x + down(…norm(x)…)`. Source: Shazeer 2020; `Qwen2MLP`. */
export const gatedMlp = ({ hiddenSize: D, hiddenAct, mlpBias: bias, intermediateSize }: DecoderConfig, I = intermediateSize) =>
  module({ gate_proj: linear(D, I, { bias }), up_proj: linear(D, I, { bias }), down_proj: linear(I, D, { bias }) }, (self) => {
    const forward = <R extends tf.Rank>(x: tf.Tensor<R>, norm?: RmsNorm): tf.Tensor<R> => gatedUnit(hiddenAct, x, self, norm)
    return Object.assign(forward, { parts: { maps: self, activation: hiddenAct } })
  })

/** Qwen2 and Qwen2.5. Source: `Qwen2Model` (transformers 5.23). */
export const qwen2Decoder = (c: Qwen2Config) => decoder(c, (index) => decoderLayer(c, qwen2Attention(c, index), gatedMlp(c)))
