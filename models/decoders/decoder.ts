import { type Module, module, repeat } from '../../lib/module.js'
import { attend, paddingMask, type Visibility } from '../../lib/nn/attention.js'
import { type Embedding, embedding } from '../../lib/nn/embedding.js'
import { rmsNorm } from '../../lib/nn/norm.js'
import { applyRope, type Positions, type RopeTables, ropeFrequencies, ropeTables } from '../../lib/nn/rope.js'
import { expectShape } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import type { DecoderConfig } from '../config.js'

/** Token states `[B, L, D]`. */
export type Hidden = tf.Tensor3D

/** Keys (already rotated) and values of one layer, `[B, G, L, K]`, G key-value heads. */
export interface LayerCache {
  readonly key: tf.Tensor4D
  readonly value: tf.Tensor4D
}

/** The cache of a whole decoder, a value: a step returns a new one and leaves the old to its owner, who disposes it. */
export type KVCache = readonly LayerCache[]

/** Number of positions in a cache. */
export const cacheLength = (cache: KVCache | undefined): number => cache?.[0]?.key.shape[2] ?? 0

/** What every layer of one forward shares, and the layer's own part of the cache. */
export interface LayerContext {
  readonly rope: RopeTables
  readonly padding: tf.Tensor4D | undefined
  readonly cache: LayerCache | undefined
}

/** A decoder layer's forward: the states after it, and its cache grown by L positions. */
export type DecoderLayer = (x: Hidden, context: LayerContext) => { readonly hidden: Hidden; readonly cache: LayerCache }

export interface DecoderOptions {
  /** What came before; positions and the attention mask go on from there. */
  readonly cache?: KVCache | undefined
  /** Ones and zeros `[B, past + L]`; 0 is padding. Without it everything is seen. */
  readonly attentionMask?: tf.Tensor2D | undefined
  /** Position of each token, `[B][L]`; by default they are counted from the past, padding included. */
  readonly positionIds?: Positions | undefined
  readonly useCache?: boolean
  readonly outputHiddenStates?: boolean
}

export interface DecoderOutput {
  /** After the final norm. */
  readonly hidden: Hidden
  readonly cache?: KVCache
  /** 0 = embeddings; the last one is after the final norm. */
  readonly hiddenStates?: readonly Hidden[]
}

/** A decoder without its head: embeddings in, hidden states out; `embedTokens` looks ids up. */
export interface Decoder {
  (embeds: Hidden, options?: DecoderOptions): DecoderOutput
  readonly embedTokens: Embedding
}

/** Rotates q and k, appends k and v to the cache, and attends causally: `[B, H, L, K]` with G key-value heads. */
export const attendCached = (
  [q, k, v]: readonly [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D],
  { rope, padding, cache: past }: LayerContext,
  see: Pick<Visibility, 'window' | 'sinks'> & { readonly scale?: number } = {}
): { readonly out: tf.Tensor4D; readonly cache: LayerCache } => {
  const rotated = applyRope(k, rope)
  const cache = past
    ? { key: tf.concat([past.key, rotated], 2), value: tf.concat([past.value, v], 2) }
    : { key: rotated, value: v }
  const causalFrom = past?.key.shape[2] ?? 0
  const scale = see.scale ?? q.shape[3] ** -0.5
  return { out: attend(applyRope(q, rope), cache.key, cache.value, scale, { ...see, causalFrom, padding }), cache }
}

const consecutive = (rows: number, from: number, length: number): Positions =>
  Array.from({ length: rows }, () => Array.from({ length }, (_, i) => from + i))

const tablesFor = (c: DecoderConfig, positions: Positions): RopeTables => {
  const length = positions.reduce((most, row) => Math.max(most, ...row), 0) + 1
  return ropeTables(ropeFrequencies(c.rope, c.headDim, c.maxPositionEmbeddings, length), positions)
}

/**
 * Embeddings, layers, final norm: what all decoders have in common; `layer` is what tells them apart.
 * Source: `Qwen2Model` and its siblings (transformers 5.23).
 */
export const decoder = <P>(c: DecoderConfig, layer: (index: number) => Module<P, DecoderLayer>) =>
  module(
    {
      embed_tokens: embedding(c.vocabSize, c.hiddenSize),
      layers: repeat(c.numHiddenLayers, layer),
      norm: rmsNorm(c.hiddenSize, c.rmsNormEps)
    },
    (self): Decoder => {
      const forward = (embeds: Hidden, options: DecoderOptions = {}): DecoderOutput => {
        const [B, L] = embeds.shape
        const past = cacheLength(options.cache)
        expectShape('embeds', embeds, [null, null, c.hiddenSize])
        if (options.attentionMask) expectShape('attentionMask', options.attentionMask, [B, past + L])
        const rope = tablesFor(c, options.positionIds ?? consecutive(B, past, L))
        const padding = options.attentionMask && paddingMask(options.attentionMask)
        const states: Hidden[] = []
        const cache: LayerCache[] = []
        let h = embeds
        for (const [i, layer] of self.layers.entries()) {
          if (options.outputHiddenStates) states.push(h)
          const next = layer(h, { rope, padding, cache: options.cache?.[i] })
          if (options.useCache) cache.push(next.cache)
          h = next.hidden
        }
        const hidden = self.norm(h)
        return {
          hidden,
          ...(options.useCache ? { cache } : {}),
          ...(options.outputHiddenStates ? { hiddenStates: [...states, hidden] } : {})
        }
      }
      return Object.assign(forward, { embedTokens: self.embed_tokens })
    }
  )
