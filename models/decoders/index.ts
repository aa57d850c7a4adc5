import type { Module } from '../../lib/module.js'
import type { Decoder } from './decoder.js'
import type { ConfigOf, DecoderFamily } from './decoder-family.js'
import type { DecoderParams } from './decoder-params.js'
import { gptOss } from './gpt-oss.js'
import { internLm2, internLm3 } from './internlm.js'
import { llama } from './llama.js'
import { phi3 } from './phi3.js'
import { qwen2 } from './qwen2.js'
import { qwen3 } from './qwen3.js'
import { qwen3Moe } from './qwen3-moe.js'

/** Every decoder that a configuration may name. Add a decoder with its file and a line here; the first is the default. */
// biome-ignore format: one line for each decoder
export const decoders = [
  qwen2,
  qwen3,
  qwen3Moe,
  llama,
  phi3,
  gptOss,
  internLm2,
  internLm3
] as const

/** Configuration of a decoder, discriminated by `modelType`. */
export type TextConfig = ConfigOf<(typeof decoders)[number]>

const registered: readonly DecoderFamily[] = decoders

/** The decoder that `matches`, in the order of `decoders`. */
export const findDecoder = (matches: (family: DecoderFamily) => boolean): DecoderFamily | undefined => registered.find(matches)

/** The decoder of a parsed configuration, under the first name that can say its biases in config.json. */
export const decoderFamilyOf = (c: TextConfig): DecoderFamily =>
  findDecoder(({ configType, canWrite }) => configType === c.modelType && (canWrite?.(c) ?? true)) ??
  findDecoder(({ configType }) => configType === c.modelType)!

/** A decoder's module. Its parameters have the type of the usual decoders; see `DecoderParams` for the others. */
export type DecoderModule = Module<DecoderParams, Decoder>

/** The module of the decoder that a text configuration names. */
export const decoderFor = (c: TextConfig): DecoderModule => decoderFamilyOf(c).build(c) as DecoderModule
