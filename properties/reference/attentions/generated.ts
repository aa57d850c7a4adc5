import { readFileSync } from 'node:fs'
import type { Packed } from '../layers.js'

/** One `generate` call: outputs by token, then by layer. */
export interface GeneratedRun {
  /** Options by their names in Python. */
  readonly options: Readonly<Record<string, unknown>>
  readonly tokens: readonly (readonly number[])[]
  readonly shapes: readonly (readonly (readonly number[])[])[]
  readonly stateShapes: readonly (readonly (readonly number[])[])[]
  /** Attention weights of the last query, `[N, H, Lk]`. */
  readonly attentions: readonly (readonly Packed[])[]
  /** States of the last position, `[N, D]`. */
  readonly states: readonly (readonly Packed[])[]
  /** `[N, V]` by token. */
  readonly scores: readonly Packed[]
  readonly logits: readonly Packed[]
  readonly beamIndices?: readonly (readonly number[])[]
}

interface GeneratedReference {
  readonly prompts: readonly (readonly number[])[]
  readonly decoders: Readonly<
    Record<
      string,
      {
        readonly config: Readonly<Record<string, unknown>>
        readonly runs: Readonly<Record<'greedy' | 'beams' | 'penalties', GeneratedRun>>
      }
    >
  >
}

/** Results of Transformers, written by `generated.py`. */
export const generatedReference: GeneratedReference = JSON.parse(readFileSync(new URL('generated.json', import.meta.url), 'utf8'))
