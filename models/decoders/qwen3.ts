import { module } from '../../lib/module.js'
import { linear } from '../../lib/nn/linear.js'
import { rmsNorm } from '../../lib/nn/norm.js'
import type { DecoderConfig } from '../config/config-types.js'
import { attentionWeightsChild, decoder, decoderLayer, selfAttention, slidingWindowOf } from './decoder.js'
import { biasesOfAttention, type DecoderFamily } from './decoder-family.js'
import { gatedMlp, qwen2 } from './qwen2.js'

export interface Qwen3Config extends DecoderConfig {
  readonly modelType: 'qwen3'
}

/** Qwen2's attention with an RMS norm of each query and key head, over its K entries. Source: `Qwen3Attention`. */
export const qwen3Attention = (c: DecoderConfig, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = slidingWindowOf(c, index)
  return module(
    {
      q_proj: linear(D, H * K, { bias }),
      k_proj: linear(D, G * K, { bias }),
      v_proj: linear(D, G * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias }),
      q_norm: rmsNorm(K, c.rmsNormEps),
      k_norm: rmsNorm(K, c.rmsNormEps),
      attention_weights: attentionWeightsChild
    },
    (self) => selfAttention({ projections: self, numHeads: H, numKeyValueHeads: G, window })
  )
}

/** Qwen3. Source: `Qwen3Model` (transformers 5.24). */
export const qwen3Decoder = (c: Qwen3Config) => decoder(c, (index) => decoderLayer(c, qwen3Attention(c, index), gatedMlp(c)))

/** Defaults: `Qwen3Config` (transformers 5.24). */
export const qwen3: DecoderFamily<Qwen3Config> = {
  modelType: 'qwen3',
  configType: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  defaults: { ...qwen2.defaults, headDim: 128 },
  slidingWindow: qwen2.slidingWindow,
  ...biasesOfAttention,
  build: qwen3Decoder
}
