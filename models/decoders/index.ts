import type { Module } from '../../lib/module.js'
import type { TextConfig } from '../config/parse-config.js'
import type { Decoder } from './decoder.js'
import { gptOssDecoder } from './gpt-oss.js'
import { llamaDecoder } from './llama.js'
import { phi3Decoder } from './phi3.js'
import { qwen2Decoder } from './qwen2.js'
import { qwen3Decoder } from './qwen3.js'
import { qwen3MoeDecoder } from './qwen3-moe.js'

/** A parameter tree of which only the shape of its leaves is known: the decoder's depends on the configuration. */
export type DecoderModule = Module<Readonly<Record<string, unknown>>, Decoder>

/** Every decoder, by the `modelType` of its configuration. The next one is a line here. */
const decoders: { readonly [T in TextConfig['modelType']]: (c: Extract<TextConfig, { modelType: T }>) => Module } = {
  qwen2: qwen2Decoder,
  qwen3: qwen3Decoder,
  llama: llamaDecoder,
  phi3: phi3Decoder,
  qwen3_moe: qwen3MoeDecoder,
  gpt_oss: gptOssDecoder
}

/** The decoder that a text configuration names. */
export const decoderFor = (c: TextConfig): DecoderModule =>
  (decoders[c.modelType] as (c: TextConfig) => Module)(c) as DecoderModule
