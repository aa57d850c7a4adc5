import { checkpointed } from '../../lib/autograd/checkpointing.js'
import { disposeUnlessTraced } from '../../lib/autograd/tape.js'
import { type Module, module, repeat } from '../../lib/module.js'
import { paddingMask } from '../../lib/nn/attention/attention.js'
import type { KVCacheType, LayerCache } from '../../lib/nn/attention/kv-cache.js'
import type { AttentionContext, SelfAttention } from '../../lib/nn/attention/self-attention.js'
import { type Embedding, embedding } from '../../lib/nn/embedding.js'
import {
  type DecoderLayer,
  type DecoderLayerOutput,
  type FeedForward,
  feedForwardOutput,
  fuseLayer
} from '../../lib/nn/fusion/fuse-layer.js'
import { fusedDecoder } from '../../lib/nn/fusion/fused-decoder.js'
import { type RmsNorm, rmsNorm } from '../../lib/nn/norm.js'
import { fusible } from '../../lib/nn/residual.js'
import { type Positions, type RopeTables, ropeFrequencies, ropeTables } from '../../lib/nn/rope.js'
import { expectShape } from '../../lib/shape.js'
import type { tf } from '../../lib/tf.js'
import type { DecoderConfig } from '../config/config-types.js'
import { chosenLayers } from './chosen-layers.js'

export {
  type AttentionContext,
  attentionWeightsChild,
  type SelfAttention,
  selfAttention
} from '../../lib/nn/attention/self-attention.js'
export type { DecoderLayer, FeedForward, MoeOutput } from '../../lib/nn/fusion/fuse-layer.js'

/** Token states `[B, L, D]`. */
export type Hidden = tf.Tensor3D

/** The caches of all layers. A value: a step returns a new cache, and the owner of the old cache disposes it. */
export type KVCache = readonly LayerCache[]

/** Number of positions in a cache. */
export const cacheLength = (cache: KVCache | undefined): number => cache?.[0]?.length ?? 0

export interface DecoderOptions {
  /** Keys and values of earlier tokens; positions and the attention mask continue after them. */
  readonly cache?: KVCache | undefined
  /** Ones and zeros `[B, past + L]`; 0 is padding. Without a mask every token is attended to. */
  readonly attentionMask?: tf.Tensor2D | undefined
  /** Sample number of each token, `[B, L]` int32, for packed rows: a token attends to its own sample only. */
  readonly segments?: tf.Tensor2D | undefined
  /** Position of each token, `[B][L]`; by default positions count from the end of the cache, padding included. */
  readonly positionIds?: Positions | undefined
  /**
   * Sequence length for rotary frequencies that depend on the length (`dynamic`, `longrope`); by default one more than the last
   * position of this forward. Steps with a cache equal one full forward if all use the same length.
   */
  readonly ropeLength?: number | undefined
  readonly useCache?: boolean
  /** Type of the keys and values in a new cache; a cache that exists keeps its own. float32 by default. */
  readonly kvCache?: KVCacheType | undefined
  readonly outputHiddenStates?: boolean
  /** Attention weights of all layers, or of the layers with these indices; -1 is the last. */
  readonly outputAttentions?: boolean | readonly number[] | undefined
  readonly outputRouterLogits?: boolean
}

export interface DecoderOutput {
  /** After the final norm. */
  readonly hidden: Hidden
  readonly cache?: KVCache
  /** 0 = embeddings; the last one is after the final norm. */
  readonly hiddenStates?: readonly Hidden[]
  /** Attention weights `[B, H, L, past + L]` of all layers, or of the chosen ones in their order. Rows of padding have no meaning. */
  readonly attentions?: readonly tf.Tensor4D[]
  /** `[B·L, E]` of every layer that is a mixture of E experts. */
  readonly routerLogits?: readonly tf.Tensor2D[]
}

/** A decoder without its head: embeddings to hidden states; `embedTokens` looks up ids. */
export interface Decoder {
  (embeds: Hidden, options?: DecoderOptions): DecoderOutput
  readonly embedTokens: Embedding
}

/** Window size of a sliding-window layer, else `undefined`. */
export const slidingWindowOf = (c: DecoderConfig, index: number): number | undefined =>
  c.layerTypes[index] === 'sliding_attention' ? c.slidingWindow : undefined

/** The same positions for all rows. */
const consecutive = (from: number, length: number): Positions => [Array.from({ length }, (_, i) => from + i)]

const tablesFor = (c: DecoderConfig, positions: Positions, ropeLength = 0): RopeTables => {
  const last = positions.reduce((most, row) => row.reduce((a, b) => Math.max(a, b), most), 0)
  const length = Math.max(last + 1, ropeLength)
  return ropeTables(ropeFrequencies(c.rope, c.headDim, c.maxPositionEmbeddings, length), positions)
}

/**
 * A pre-norm decoder layer, `[B, L, D] → [B, L, D]`: `h = x + attention(norm(x))`, then `h + mlp(norm(h))`. `attention` and `mlp` are
 * any modules of these types. Source: `Qwen2DecoderLayer`.
 */
export const decoderLayer = <A, M>(c: DecoderConfig, attention: Module<A, SelfAttention>, mlp: Module<M, FeedForward>) =>
  module(
    {
      input_layernorm: rmsNorm(c.hiddenSize, c.rmsNormEps),
      self_attn: attention,
      post_attention_layernorm: rmsNorm(c.hiddenSize, c.rmsNormEps),
      mlp
    },
    (self): DecoderLayer =>
      (x, context) => {
        const attention = self.self_attn(self.input_layernorm(x), context)
        const h = x.add<Hidden>(attention.hidden)
        const mlp = feedForwardOutput(self.mlp(self.post_attention_layernorm(h)))
        const { cache, attentions } = attention // read by name: a layer that is spread has no symbolic trace, and would not be fused
        return { hidden: h.add(mlp.hidden), cache, attentions, routerLogits: mlp.routerLogits }
      }
  )

/** Output of all layers and the final norm; `states` are the inputs of the layers. */
interface LayersOutput {
  readonly hidden: Hidden
  readonly cache: KVCache
  readonly states?: readonly Hidden[]
  readonly attentions?: readonly tf.Tensor4D[]
  readonly routerLogits?: readonly tf.Tensor2D[]
}

/** The attention weights that a layer returned. Throws a `RangeError` for a layer whose forward returns none. */
const attentionsOf = ({ attentions }: DecoderLayerOutput, index: number): tf.Tensor4D => {
  if (attentions) return attentions
  throw new RangeError(`outputAttentions: layer ${index} returns no attentions; its forward drops those of its attention`)
}

/** Runs the layers one by one and collects the requested outputs. */
const runLayers = (
  layers: readonly DecoderLayer[],
  norm: RmsNorm,
  embeds: Hidden,
  { cache: past, ...options }: DecoderOptions,
  context: Omit<AttentionContext, 'cache'>
): LayersOutput => {
  const states: Hidden[] = []
  const chosen = chosenLayers('outputAttentions', options.outputAttentions, layers.length)
  const attentions = new Map<number, tf.Tensor4D>()
  const cache: LayerCache[] = []
  const routerLogits: tf.Tensor2D[] = []
  let hidden = embeds
  for (const [i, layer] of layers.entries()) {
    if (options.outputHiddenStates) states.push(hidden)
    const outputAttentions = chosen.includes(i)
    const next = layer(hidden, { ...context, cache: past?.[i], outputAttentions })
    if (outputAttentions) attentions.set(i, attentionsOf(next, i))
    if (options.useCache) cache.push(next.cache)
    if (options.outputRouterLogits && next.routerLogits) routerLogits.push(next.routerLogits)
    if (!options.outputHiddenStates && hidden !== embeds) disposeUnlessTraced(hidden)
    hidden = next.hidden
  }
  return { hidden: norm(hidden), cache, states, attentions: chosen.map((i) => attentions.get(i)!), routerLogits }
}

/**
 * A decoder of token embeddings, layers and a final norm; decoders differ in the `layer` of an index only.
 * Source: `Qwen2Model` and its siblings (transformers 5.24).
 */
export const decoder = <P>(c: DecoderConfig, layer: (index: number) => Module<P, DecoderLayer>) =>
  module(
    {
      embed_tokens: embedding(c.vocabSize, c.hiddenSize),
      layers: repeat(c.numHiddenLayers, (index) => checkpointed(fuseLayer(layer(index)))),
      norm: rmsNorm(c.hiddenSize, c.rmsNormEps)
    },
    (self): Decoder => {
      const runFused = fusedDecoder(
        self.layers.map((layer) => layer[fusible]),
        self.norm
      )
      const forward = (embeds: Hidden, options: DecoderOptions = {}): DecoderOutput => {
        const [B, L] = embeds.shape
        const past = cacheLength(options.cache)
        expectShape('embeds', embeds, [null, null, c.hiddenSize])
        if (options.attentionMask) expectShape('attentionMask', options.attentionMask, [B, past + L])
        if (options.segments) expectShape('segments', options.segments, [B, L])
        const rope = tablesFor(c, options.positionIds ?? consecutive(past, L), options.ropeLength)
        const padding = options.attentionMask && paddingMask(options.attentionMask)
        const cacheType = options.useCache ? options.kvCache : undefined // no rounding where the cache is not kept
        const context = { rope, padding, segments: options.segments, cacheType, useCache: options.useCache ?? false }
        const returnsInner = options.outputHiddenStates || options.outputAttentions
        const fused = returnsInner ? undefined : runFused(embeds, options.cache, context)
        const {
          hidden,
          cache,
          states = [],
          attentions = [],
          routerLogits = []
        }: LayersOutput = fused ?? runLayers(self.layers, self.norm, embeds, options, context)
        return {
          hidden,
          ...(options.useCache ? { cache } : {}),
          ...(options.outputHiddenStates ? { hiddenStates: [...states, hidden] } : {}),
          ...(options.outputAttentions ? { attentions } : {}),
          ...(options.outputRouterLogits ? { routerLogits } : {})
        }
      }
      return Object.assign(forward, { embedTokens: self.embed_tokens })
    }
  )
