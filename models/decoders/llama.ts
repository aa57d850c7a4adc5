import type { LlamaConfig } from '../config/parse-config.js'
import { decoder, decoderLayer } from './decoder.js'
import { gatedMlp, qwen2Attention } from './qwen2.js'

/**
 * Llama, and what is a Llama under another name: InternLM2, InternLM2.5 and InternLM3. What tells it from Qwen2 is in its
 * configuration: which projections have biases, how rotary frequencies are stretched. Source: `LlamaModel` (transformers 5.23).
 */
export const llamaDecoder = (c: LlamaConfig) => decoder(c, (index) => decoderLayer(c, qwen2Attention(c, index), gatedMlp(c)))
