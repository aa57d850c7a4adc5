import { module } from '../../lib/module.js'
import { activations } from '../../lib/nn/activation.js'
import { mergeHeads, splitHeads } from '../../lib/nn/attention.js'
import { linear } from '../../lib/nn/linear.js'
import { rmsNorm } from '../../lib/nn/norm.js'
import type { DecoderConfig, Qwen2Config } from '../config.js'
import { attendCached, type DecoderLayer, decoder, type Hidden, type LayerContext } from './decoder.js'

/** Grouped-query causal self-attention with rotary positions, `[B, L, D] → [B, L, D]`. Source: `Qwen2Attention`. */
export const qwen2Attention = (c: DecoderConfig, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = c.layerTypes[index] === 'sliding_attention' ? c.slidingWindow : undefined
  return module(
    {
      q_proj: linear(D, H * K, { bias }),
      k_proj: linear(D, G * K, { bias }),
      v_proj: linear(D, G * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias })
    },
    (self) => (x: Hidden, context: LayerContext) => {
      const heads = [splitHeads(self.q_proj(x), H), splitHeads(self.k_proj(x), G), splitHeads(self.v_proj(x), G)] as const
      const { out, cache } = attendCached(heads, context, { window })
      return { hidden: self.o_proj(mergeHeads(out)), cache }
    }
  )
}

/** SwiGLU, `down(act(gate(x)) ⊙ up(x))`. Source: Shazeer 2020; `Qwen2MLP`. */
export const gatedMlp = ({ hiddenSize: D, intermediateSize: I, hiddenAct, mlpBias: bias }: DecoderConfig) =>
  module(
    { gate_proj: linear(D, I, { bias }), up_proj: linear(D, I, { bias }), down_proj: linear(I, D, { bias }) },
    (self) =>
      (x: Hidden): Hidden =>
        self.down_proj(activations[hiddenAct](self.gate_proj(x)).mul(self.up_proj(x)))
  )

/** Pre-norm block. Source: `Qwen2DecoderLayer`. */
export const qwen2Layer = (c: DecoderConfig, index: number) =>
  module(
    {
      input_layernorm: rmsNorm(c.hiddenSize, c.rmsNormEps),
      self_attn: qwen2Attention(c, index),
      post_attention_layernorm: rmsNorm(c.hiddenSize, c.rmsNormEps),
      mlp: gatedMlp(c)
    },
    (self): DecoderLayer =>
      (x, context) => {
        const { hidden, cache } = self.self_attn(self.input_layernorm(x), context)
        const h: Hidden = x.add(hidden)
        return { hidden: h.add(self.mlp(self.post_attention_layernorm(h))), cache }
      }
  )

/** Qwen2 and Qwen2.5. Source: `Qwen2Model` (transformers 5.23). */
export const qwen2Decoder = (c: Qwen2Config) => decoder(c, (index) => qwen2Layer(c, index))
