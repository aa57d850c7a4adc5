import { isRecording } from '../autograd/tape.js'
import { hasKernel, runKernel } from '../ops/kernel.js'
import type { tf } from '../tf.js'
import type { Activation } from './activation.js'
import { type AttentionMaps, fixedBranch } from './fused-attention.js'
import { type CachedAttention, cachedStep, type FixedAttention, type LayerCache, roomFor } from './kv-cache.js'
import { type GatedMaps, mapsTogether } from './linear.js'
import type { RmsNorm } from './norm.js'

/** What a self-attention is made of, for functions that join it with others in a single step. */
export interface AttentionParts extends FixedAttention {
  readonly maps: AttentionMaps
}

/** What a gated unit is made of. */
export interface UnitParts {
  readonly maps: GatedMaps
  readonly activation: Activation
}

/** What a pre-norm layer of a decoder is made of. */
export interface LayerParts {
  readonly attentionNorm: RmsNorm
  readonly attention: AttentionParts
  readonly unitNorm: RmsNorm
  readonly unit: UnitParts
}

/** What all layers of a forward attend with. */
type Shared = Pick<CachedAttention, 'rope' | 'padding' | 'segments'>

/** What a kernel is given and told of a layer at every step alike; nothing where a part has an update of its own. */
const fixedLayer = ({ attentionNorm, attention, unitNorm, unit }: LayerParts) => {
  const branch = fixedBranch(attentionNorm, attention.maps, attention)
  const maps = mapsTogether([unit.maps.gate_proj, unit.maps.up_proj, unit.maps.down_proj])
  if (!branch || !maps) return undefined
  const attributes = { activation: unit.activation, eps: unitNorm.rms.eps, forms: maps.forms }
  return { attention: branch, unit: { inputs: { norm: unitNorm.rms.weight, ...maps.inputs }, attributes } }
}
type FixedLayer = NonNullable<ReturnType<typeof fixedLayer>>

/** One element for each, or nothing at all. */
const everyOne = <A>(all: ReadonlyArray<A | undefined>): readonly A[] | undefined =>
  all.every((each): each is A => each !== undefined) ? all : undefined

/**
 * All layers of a decoder and the norm after them in one step, `[B, L, D] → [B, L, D]`, and the layers' caches: while a model decodes,
 * what surrounds the ops of a layer takes as long as half of what is computed. Nothing where the engine has no kernel for it, or a
 * gradient is wanted: then they are to be run one by one, with the same result. What is fixed of them is put together once.
 */
export const layersTogether = (layers: ReadonlyArray<LayerParts | undefined>, norm: RmsNorm) => {
  const parts = everyOne(layers)
  let fixed: readonly FixedLayer[] | false | undefined // not known before it is asked for
  return (
    x: tf.Tensor3D,
    caches: readonly LayerCache[] | undefined,
    { segments, ...shared }: Shared
  ): { readonly hidden: tf.Tensor3D; readonly cache: readonly LayerCache[] } | undefined => {
    if (!parts || !hasKernel('DecoderLayers') || isRecording() || segments) return undefined
    if (caches?.some(({ length }) => length !== caches[0]!.length)) return undefined
    fixed ??= everyOne(parts.map(fixedLayer)) ?? false
    if (!fixed) return undefined
    const [B, L] = x.shape
    const steps = fixed.map(({ attention: { attributes, headDim } }, i) =>
      cachedStep(caches?.[i], [B, attributes.keyHeads, L, headDim], shared, roomFor(L))
    )
    const cache = steps.map(({ cache }) => cache)
    const attributes = {
      ...steps[0]!.attributes,
      layers: fixed,
      norm: norm.rms,
      memory: cache.flatMap(({ key, value }) => [key, value])
    }
    const { cos, sin } = shared.rope
    return { hidden: runKernel('DecoderLayers', { x, cos, sin, padding: shared.padding }, attributes), cache }
  }
}
