import { module } from '../../lib/module.js'
import { gatedLinearUnit } from '../../lib/nn/gated-linear-unit.js'
import { linear } from '../../lib/nn/linear.js'
import type { DecoderConfig } from '../config/config-types.js'
import { attentionWeightsChild, decoder, decoderLayer, selfAttention, slidingWindowOf } from './decoder.js'
import { type DecoderFamily, fixedBiases } from './decoder-family.js'

export interface Phi3Config extends DecoderConfig {
  readonly modelType: 'phi3'
}

/** Self-attention with one stacked projection of queries, keys and values, in that order. Source: `Phi3Attention`. */
export const phi3Attention = (c: Phi3Config, index: number) => {
  const { hiddenSize: D, numAttentionHeads: H, numKeyValueHeads: G, headDim: K, attentionBias: bias } = c
  const window = slidingWindowOf(c, index)
  return module(
    {
      qkv_proj: linear(D, (H + 2 * G) * K, { bias }),
      o_proj: linear(H * K, D, { bias: c.outputBias }),
      attention_weights: attentionWeightsChild
    },
    (self) => selfAttention({ projections: self, numHeads: H, numKeyValueHeads: G, window })
  )
}

/** Gated MLP (SwiGLU) with gate and up in one projection, gate first: `[B, L, D] → [B, L, D]`. Source: `Phi3MLP`. */
const phi3Mlp = ({ hiddenSize: D, intermediateSize: I, hiddenAct, mlpBias: bias }: Phi3Config) =>
  module({ gate_up_proj: linear(D, 2 * I, { bias }), down_proj: linear(I, D, { bias }) }, (self) =>
    gatedLinearUnit(hiddenAct, self)
  )

/** Phi-3. Source: `Phi3Model` (transformers 5.24). */
const phi3Decoder = (c: Phi3Config) => decoder(c, (index) => decoderLayer(c, phi3Attention(c, index), phi3Mlp(c)))

/** Defaults: `Phi3Config` (transformers 5.24). Its files name the rope type `longrope` also `su` and `yarn`. */
export const phi3: DecoderFamily<Phi3Config> = {
  modelType: 'phi3',
  configType: 'phi3',
  architecture: 'Phi3ForCausalLM',
  defaults: {
    vocabSize: 32064,
    hiddenSize: 3072,
    intermediateSize: 8192,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    maxPositionEmbeddings: 4096,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    originalMaxPositionEmbeddings: 4096,
    bosTokenId: 1,
    eosTokenId: 32000,
    padTokenId: 32000
  },
  slidingWindow: { layers: 'all' },
  rope: { typeNames: { su: 'longrope', yarn: 'longrope' }, isPartial: true },
  ...fixedBiases({ attentionBias: false, outputBias: false, mlpBias: false }),
  build: phi3Decoder,
  conversationTemplate: 'phi3-chat'
}
