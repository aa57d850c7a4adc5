import { module } from '../../lib/module.js'
import { gated } from '../../lib/nn/activation.js'
import { attendCached } from '../../lib/nn/kv-cache.js'
import { linear } from '../../lib/nn/linear.js'
import type { RmsNorm } from '../../lib/nn/norm.js'
import { tf } from '../../lib/tf.js'
import type { Phi3Config } from '../config/parse-config.js'
import { decoder, decoderLayer, type Hidden, type SelfAttention, windowOf } from './decoder.js'

/** Self-attention whose three projections are one, rows of q, then k, then v. Source: `Phi3Attention`. */
export const phi3Attention = (c: Phi3Config, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = windowOf(c, index)
  return module(
    { qkv_proj: linear(D, (H + 2 * G) * K, { bias }), o_proj: linear(H * K, D, { bias: c.outputBias }) },
    (self): SelfAttention =>
      (x, norm, context) => {
        const heads = tf.split(self.qkv_proj(norm(x)), [H * K, G * K, G * K], 2) as [Hidden, Hidden, Hidden]
        const { out, cache } = attendCached(heads, context.cache, { ...context, heads: H, keyHeads: G, window })
        return { hidden: self.o_proj(out, x), cache }
      }
  )
}

/** The branch of SwiGLU with gate and up in one projection, gate first: `[B, L, D] → [B, L, D]`. Source: `Phi3MLP`. */
export const phi3Mlp = ({ hiddenSize: D, intermediateSize: I, hiddenAct, mlpBias: bias }: Phi3Config) =>
  module(
    { gate_up_proj: linear(D, 2 * I, { bias }), down_proj: linear(I, D, { bias }) },
    (self) =>
      (x: Hidden, norm: RmsNorm): Hidden => {
        const [gate, up] = tf.split(self.gate_up_proj(norm(x)), 2, 2) as [Hidden, Hidden]
        return self.down_proj(gated(hiddenAct, gate, up), x)
      }
  )

/** Phi-3. Source: `Phi3Model` (transformers 5.23). */
export const phi3Decoder = (c: Phi3Config) => decoder(c, (index) => decoderLayer(c, phi3Attention(c, index), phi3Mlp(c)))
