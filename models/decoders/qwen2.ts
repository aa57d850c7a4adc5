import { module } from '../../lib/module.js'
import { gatedLinearUnit } from '../../lib/nn/gated-linear-unit.js'
import { linear } from '../../lib/nn/linear.js'
import type { DecoderConfig } from '../config/config-types.js'
import { attentionWeightsChild, decoder, decoderLayer, selfAttention, slidingWindowOf } from './decoder.js'
import { type DecoderFamily, fixedBiases } from './decoder-family.js'

export interface Qwen2Config extends DecoderConfig {
  readonly modelType: 'qwen2'
}

/** Grouped-query causal self-attention with rotary positions, `[B, L, D] → [B, L, D]`. Source: `Qwen2Attention`. */
export const qwen2Attention = (c: DecoderConfig, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = slidingWindowOf(c, index)
  return module(
    {
      q_proj: linear(D, H * K, { bias }),
      k_proj: linear(D, G * K, { bias }),
      v_proj: linear(D, G * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias }),
      attention_weights: attentionWeightsChild
    },
    (self) => selfAttention({ projections: self, numHeads: H, numKeyValueHeads: G, window })
  )
}

/** Gated MLP (SwiGLU), `down(act(gate(x)) ⊙ up(x))`, `[…, D] → […, D]` with I inner features. Source: Shazeer 2020; `Qwen2MLP`. */
export const gatedMlp = ({ hiddenSize: D, hiddenAct, mlpBias: bias, intermediateSize }: DecoderConfig, I = intermediateSize) =>
  module({ gate_proj: linear(D, I, { bias }), up_proj: linear(D, I, { bias }), down_proj: linear(I, D, { bias }) }, (self) =>
    gatedLinearUnit(hiddenAct, self)
  )

/** Qwen2 and Qwen2.5. Source: `Qwen2Model` (transformers 5.24). */
export const qwen2Decoder = (c: Qwen2Config) => decoder(c, (index) => decoderLayer(c, qwen2Attention(c, index), gatedMlp(c)))

/** Defaults: `Qwen2Config` (transformers 5.24). */
export const qwen2: DecoderFamily<Qwen2Config> = {
  modelType: 'qwen2',
  configType: 'qwen2',
  architecture: 'Qwen2ForCausalLM',
  defaults: {
    vocabSize: 151936,
    hiddenSize: 4096,
    intermediateSize: 22016,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    numKeyValueHeads: 32,
    maxPositionEmbeddings: 32768,
    rmsNormEps: 1e-6,
    ropeTheta: 10000
  },
  slidingWindow: { layers: 'upper', window: 4096, isOptional: true },
  ...fixedBiases({ attentionBias: true, outputBias: false, mlpBias: false }),
  build: qwen2Decoder
}
