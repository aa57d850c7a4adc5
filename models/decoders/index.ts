import type { Module } from '../../lib/module.js'
import type { TextConfig } from '../config.js'
import type { Decoder } from './decoder.js'
import { qwen2Decoder } from './qwen2.js'

/** A parameter tree of which only the shape of its leaves is known: the decoder's depends on the configuration. */
export type DecoderModule = Module<Readonly<Record<string, unknown>>, Decoder>

/** The decoder that a text configuration names. */
export const decoderFor = (c: TextConfig): DecoderModule => {
  switch (c.modelType) {
    case 'qwen2':
      return qwen2Decoder(c) as DecoderModule
    default:
      throw new RangeError(`decoder ${c.modelType}: not supported yet`)
  }
}
