import { checkpointed } from '../../lib/autograd/checkpointing.js'
import { spent } from '../../lib/autograd/tape.js'
import { type Module, module, repeat } from '../../lib/module.js'
import { paddingMask } from '../../lib/nn/attention.js'
import { type Embedding, embedding } from '../../lib/nn/embedding.js'
import { attentionBranch } from '../../lib/nn/fused-attention.js'
import { type AttentionParts, type LayerParts, layersTogether, type UnitParts } from '../../lib/nn/fused-decoder.js'
import type { LayerCache } from '../../lib/nn/kv-cache.js'
import { type RmsNorm, rmsNorm } from '../../lib/nn/norm.js'
import { type Positions, type RopeTables, ropeFrequencies, ropeTables } from '../../lib/nn/rope.js'
import { expectShape } from '../../lib/shape.js'
import type { tf } from '../../lib/tf.js'
import type { DecoderConfig } from '../config/parse-config.js'

/** Token states `[B, L, D]`. */
export type Hidden = tf.Tensor3D

/** The cache of a whole decoder, a value: a step returns a new one and leaves the old to its owner, who disposes it. */
export type KVCache = readonly LayerCache[]

/** Number of positions in a cache. */
export const cacheLength = (cache: KVCache | undefined): number => cache?.[0]?.length ?? 0

/** What every layer of one forward shares, and the layer's own part of the cache. */
export interface LayerContext {
  readonly rope: RopeTables
  readonly padding: tf.Tensor4D | undefined
  readonly segments: tf.Tensor2D | undefined
  readonly cache: LayerCache | undefined
}

/**
 * The branch of self-attention, `x + attention(norm(x))`, `[B, L, D] → [B, L, D]`, and its cache grown by L positions. A branch is
 * given its norm and adds x itself, so that both may be part of its first and its last product.
 */
export interface SelfAttention {
  (x: Hidden, norm: RmsNorm, context: LayerContext): { readonly hidden: Hidden; readonly cache: LayerCache }
  /** What it is made of, where all layers of a decoder may run in one step. */
  readonly parts?: AttentionParts
}

/** Self-attention by maps, and norms of heads, of the usual kind. */
export const selfAttention = (parts: AttentionParts): SelfAttention => {
  const forward: SelfAttention = (x, norm, { cache, ...context }) =>
    attentionBranch(x, norm, parts.maps, cache, { ...context, ...parts })
  return Object.assign(forward, { parts })
}

/** What a mixture of experts gives: states, and how its router scored every expert for every token, `[B·L, E]`. */
export interface Routed {
  readonly hidden: Hidden
  readonly routerLogits: tf.Tensor2D
}

/** The branch of a feed-forward, `x + mlp(norm(x))`, `[B, L, D] → [B, L, D]`, dense or a mixture of experts. */
export interface FeedForward {
  (x: Hidden, norm: RmsNorm): Hidden | Routed
  readonly parts?: UnitParts
}

/** A decoder layer's: the states after it, its cache, and its router's scores where it has one. */
export interface DecoderLayer {
  (
    x: Hidden,
    context: LayerContext
  ): { readonly hidden: Hidden; readonly cache: LayerCache; readonly routerLogits?: tf.Tensor2D | undefined }
  readonly parts?: LayerParts | undefined
}

export interface DecoderOptions {
  /** What came before; positions and the attention mask go on from there. */
  readonly cache?: KVCache | undefined
  /** Ones and zeros `[B, past + L]`; 0 is padding. Without it everything is seen. */
  readonly attentionMask?: tf.Tensor2D | undefined
  /** Number of the sample that each token belongs to, `[B, L]` int32, where rows hold several: a token sees its own sample only. */
  readonly segments?: tf.Tensor2D | undefined
  /** Position of each token, `[B][L]`; by default they are counted from the past, padding included. */
  readonly positionIds?: Positions | undefined
  /**
   * Rotary frequencies for at least so many positions, where they depend on that (`dynamic`, `longrope`); by default for those
   * up to this forward's last. Steps with a cache equal one full forward if all have the same.
   */
  readonly ropeLength?: number | undefined
  readonly useCache?: boolean
  readonly outputHiddenStates?: boolean
  readonly outputRouterLogits?: boolean
}

export interface DecoderOutput {
  /** After the final norm. */
  readonly hidden: Hidden
  readonly cache?: KVCache
  /** 0 = embeddings; the last one is after the final norm. */
  readonly hiddenStates?: readonly Hidden[]
  /** `[B·L, E]` of every layer that is a mixture of E experts. */
  readonly routerLogits?: readonly tf.Tensor2D[]
}

/** A decoder without its head: embeddings in, hidden states out; `embedTokens` looks ids up. */
export interface Decoder {
  (embeds: Hidden, options?: DecoderOptions): DecoderOutput
  readonly embedTokens: Embedding
}

/** The window of a layer, if it slides. */
export const windowOf = (c: DecoderConfig, index: number): number | undefined =>
  c.layerTypes[index] === 'sliding_attention' ? c.slidingWindow : undefined

const consecutive = (rows: number, from: number, length: number): Positions =>
  Array.from({ length: rows }, () => Array.from({ length }, (_, i) => from + i))

const tablesFor = (c: DecoderConfig, positions: Positions, ropeLength = 0): RopeTables => {
  const last = positions.reduce((most, row) => row.reduce((a, b) => Math.max(a, b), most), 0)
  const length = Math.max(last + 1, ropeLength)
  return ropeTables(ropeFrequencies(c.rope, c.headDim, c.maxPositionEmbeddings, length), positions)
}

/** The pre-norm block of them all, `h = x + attention(norm(x))`, `h + mlp(norm(h))`. Source: `Qwen2DecoderLayer`. */
export const decoderLayer = <A, M>(c: DecoderConfig, attention: Module<A, SelfAttention>, mlp: Module<M, FeedForward>) =>
  module(
    {
      input_layernorm: rmsNorm(c.hiddenSize, c.rmsNormEps),
      self_attn: attention,
      post_attention_layernorm: rmsNorm(c.hiddenSize, c.rmsNormEps),
      mlp
    },
    (self): DecoderLayer => {
      const forward: DecoderLayer = (x, context) => {
        const { hidden, cache } = self.self_attn(x, self.input_layernorm, context)
        const out = self.mlp(hidden, self.post_attention_layernorm)
        return 'routerLogits' in out ? { ...out, cache } : { hidden: out, cache }
      }
      const { parts: attention } = self.self_attn
      const { parts: unit } = self.mlp
      const norms = { attentionNorm: self.input_layernorm, unitNorm: self.post_attention_layernorm }
      return Object.assign(forward, { parts: attention && unit && { ...norms, attention, unit } })
    }
  )

/** What comes of all layers and the norm after them. */
interface Run {
  readonly hidden: Hidden
  readonly cache: KVCache
  /** Before each layer. */
  readonly states?: readonly Hidden[]
  readonly routerLogits?: readonly tf.Tensor2D[]
}

/** Layer after layer, and what of each is asked for. */
const oneByOne = (
  layers: readonly DecoderLayer[],
  norm: RmsNorm,
  embeds: Hidden,
  { cache: past, ...options }: DecoderOptions,
  context: Omit<LayerContext, 'cache'>
): Run => {
  const states: Hidden[] = []
  const cache: LayerCache[] = []
  const routerLogits: tf.Tensor2D[] = []
  let hidden = embeds
  for (const [i, layer] of layers.entries()) {
    if (options.outputHiddenStates) states.push(hidden)
    const next = layer(hidden, { ...context, cache: past?.[i] })
    if (options.useCache) cache.push(next.cache)
    if (options.outputRouterLogits && next.routerLogits) routerLogits.push(next.routerLogits)
    if (!options.outputHiddenStates && hidden !== embeds) spent(hidden)
    hidden = next.hidden
  }
  return { hidden: norm(hidden), cache, states, routerLogits }
}

/**
 * Embeddings, layers, final norm: what all decoders have in common; `layer` is what tells them apart.
 * Source: `Qwen2Model` and its siblings (transformers 5.23).
 */
export const decoder = <P>(c: DecoderConfig, layer: (index: number) => Module<P, DecoderLayer>) =>
  module(
    {
      embed_tokens: embedding(c.vocabSize, c.hiddenSize),
      layers: repeat(c.numHiddenLayers, (index) => checkpointed(layer(index))),
      norm: rmsNorm(c.hiddenSize, c.rmsNormEps)
    },
    (self): Decoder => {
      const allLayers = layersTogether(
        self.layers.map((layer) => layer.parts),
        self.norm
      )
      const forward = (embeds: Hidden, options: DecoderOptions = {}): DecoderOutput => {
        const [B, L] = embeds.shape
        const past = cacheLength(options.cache)
        expectShape('embeds', embeds, [null, null, c.hiddenSize])
        if (options.attentionMask) expectShape('attentionMask', options.attentionMask, [B, past + L])
        if (options.segments) expectShape('segments', options.segments, [B, L])
        const rope = tablesFor(c, options.positionIds ?? consecutive(B, past, L), options.ropeLength)
        const padding = options.attentionMask && paddingMask(options.attentionMask)
        const context = { rope, padding, segments: options.segments }
        const together = options.outputHiddenStates ? undefined : allLayers(embeds, options.cache, context)
        const {
          hidden,
          cache,
          states = [],
          routerLogits = []
        }: Run = together ?? oneByOne(self.layers, self.norm, embeds, options, context)
        return {
          hidden,
          ...(options.useCache ? { cache } : {}),
          ...(options.outputHiddenStates ? { hiddenStates: [...states, hidden] } : {}),
          ...(options.outputRouterLogits ? { routerLogits } : {})
        }
      }
      return Object.assign(forward, { embedTokens: self.embed_tokens })
    }
  )
