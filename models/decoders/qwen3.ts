import { module } from '../../lib/module.js'
import { linear } from '../../lib/nn/linear.js'
import { rmsNorm } from '../../lib/nn/norm.js'
import type { DecoderConfig, Qwen3Config } from '../config/parse-config.js'
import { decoder, decoderLayer, selfAttention, windowOf } from './decoder.js'
import { gatedMlp } from './qwen2.js'

/** Qwen2's attention with an RMS norm of each query and key head, over its K entries. Source: `Qwen3Attention`. */
export const qwen3Attention = (c: DecoderConfig, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = windowOf(c, index)
  return module(
    {
      q_proj: linear(D, H * K, { bias }),
      k_proj: linear(D, G * K, { bias }),
      v_proj: linear(D, G * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias }),
      q_norm: rmsNorm(K, c.rmsNormEps),
      k_norm: rmsNorm(K, c.rmsNormEps)
    },
    (self) => selfAttention({ maps: self, heads: H, keyHeads: G, window })
  )
}

/** Qwen3. Source: `Qwen3Model` (transformers 5.23). */
export const qwen3Decoder = (c: Qwen3Config) => decoder(c, (index) => decoderLayer(c, qwen3Attention(c, index), gatedMlp(c)))
