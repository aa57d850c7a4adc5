import { module } from '../../lib/module.js'
import { gated } from '../../lib/nn/activation.js'
import { mergeHeads, splitHeads } from '../../lib/nn/attention.js'
import { linear } from '../../lib/nn/linear.js'
import type { tf } from '../../lib/tf.js'
import type { DecoderConfig, Qwen2Config } from '../config.js'
import { attendCached, decoder, decoderLayer, type SelfAttention, windowOf } from './decoder.js'

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
    (self): SelfAttention =>
      (x, context) => {
        const heads = [splitHeads(self.q_proj(x), H), splitHeads(self.k_proj(x), G), splitHeads(self.v_proj(x), G)] as const
        const { out, cache } = attendCached(heads, context, { window })
        return { hidden: self.o_proj(mergeHeads(out)), cache }
      }
  )
}

/** SwiGLU, `down(act(gate(x)) ⊙ up(x))`, over the last axis. Source: Shazeer 2020; `Qwen2MLP`. */
export const gatedMlp = ({ hiddenSize: D, hiddenAct, mlpBias: bias, intermediateSize }: DecoderConfig, I = intermediateSize) =>
  module(
    { gate_proj: linear(D, I, { bias }), up_proj: linear(D, I, { bias }), down_proj: linear(I, D, { bias }) },
    (self) =>
      <R extends tf.Rank>(x: tf.Tensor<R>): tf.Tensor<R> =>
        self.down_proj(gated(hiddenAct, self.gate_proj(x), self.up_proj(x)))
  )

/** Qwen2 and Qwen2.5. Source: `Qwen2Model` (transformers 5.23). */
export const qwen2Decoder = (c: Qwen2Config) => decoder(c, (index) => decoderLayer(c, qwen2Attention(c, index), gatedMlp(c)))
