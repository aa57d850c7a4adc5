import { flag } from '../config/config-fields.js'
import type { DecoderConfig } from '../config/config-types.js'
import { decoder, decoderLayer } from './decoder.js'
import { biasesOfAttention, type DecoderFamily } from './decoder-family.js'
import { gatedMlp, qwen2Attention } from './qwen2.js'

export interface LlamaConfig extends DecoderConfig {
  readonly modelType: 'llama'
}

/**
 * Llama, also used for InternLM2, InternLM2.5 and InternLM3. Llama differs from Qwen2 in the configuration only: biases of projections,
 * and scaling of rotary frequencies. Source: `LlamaModel` (transformers 5.24).
 */
const llamaDecoder = (c: LlamaConfig) => decoder(c, (index) => decoderLayer(c, qwen2Attention(c, index), gatedMlp(c)))

/** Defaults: `LlamaConfig` (transformers 5.24). */
export const llama: DecoderFamily<LlamaConfig> = {
  modelType: 'llama',
  configType: 'llama',
  architecture: 'LlamaForCausalLM',
  defaults: {
    vocabSize: 32000,
    hiddenSize: 4096,
    intermediateSize: 11008,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    maxPositionEmbeddings: 2048,
    rmsNormEps: 1e-6,
    ropeTheta: 10000,
    bosTokenId: 1,
    eosTokenId: 2
  },
  slidingWindow: { layers: 'none' },
  biases: (f) => ({ ...biasesOfAttention.biases(f), mlpBias: f('mlp_bias', flag, false) }),
  biasJson: ({ attentionBias, mlpBias }) => ({ attention_bias: attentionBias, mlp_bias: mlpBias }),
  canWrite: ({ attentionBias, outputBias }) => attentionBias === outputBias,
  build: llamaDecoder
}
