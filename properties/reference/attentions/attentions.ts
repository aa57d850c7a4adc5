import { readFileSync } from 'node:fs'
import type { Module } from '../../../lib/module.js'
import { buildParams } from '../../../lib/params.js'
import { sizeOf } from '../../../lib/shape.js'
import { tf } from '../../../lib/tf.js'
import type { Packed } from '../layers.js'

/** Attention weights of one decoder: a forward of seven tokens, and one of two more after the cache. */
interface DecoderAttentions {
  readonly config: Readonly<Record<string, unknown>>
  readonly first: readonly Packed[]
  readonly second: readonly Packed[]
}

/** One `generate` call on the demo model: outputs by token, then by layer. */
interface GeneratedOutputs {
  readonly eos: readonly number[]
  readonly tokens: readonly (readonly number[])[]
  readonly shapes: readonly (readonly (readonly number[])[])[]
  readonly lastRows: readonly (readonly Packed[])[]
  readonly stateShapes: readonly (readonly (readonly number[])[])[]
  readonly lastStates: readonly (readonly Packed[])[]
}

interface AttentionReference {
  readonly decoders: Readonly<Record<string, DecoderAttentions>>
  readonly prompts: readonly (readonly number[])[]
  readonly generated: readonly GeneratedOutputs[]
  readonly vision: { readonly shapes: readonly (readonly number[])[]; readonly rows: readonly Packed[] }
}

/** Results of Transformers, written by `attentions.py`. */
export const attentionReference: AttentionReference = JSON.parse(
  readFileSync(new URL('attentions.json', import.meta.url), 'utf8')
)

/** The weights and inputs of `attentions.py`: sines of the name; norms have 1 added. */
export const wave = (name: string, shape: readonly number[]): tf.Tensor => {
  const h = [...name].reduce((hash, character) => (hash * 31 + character.charCodeAt(0)) % 65521, 7)
  const base = name.includes('norm') ? 1 : 0
  return tf.tensor(
    Array.from({ length: sizeOf(shape) }, (_, j) => base + 0.4 * Math.sin(h + 1.7 * j)),
    [...shape]
  )
}

/** Parameters of a module by the sines of their paths. */
export const waveParams = <P>(module: Module<P>): P => buildParams(module, (path, { shape }) => wave(path, shape))
