import { isTraced } from '../tape.js'
import { tf } from '../tf.js'
import type { Activation } from './activation.js'
import { type AttentionMaps, branchStep } from './attention-branch.js'
import { hasKernel } from './fused.js'
import type { CachedAttention, LayerCache } from './kv-cache.js'
import { type GatedMaps, mapsTogether } from './linear.js'
import type { RmsNorm } from './norm.js'

/** What a self-attention is made of, for functions that join it with others in a single step. */
export interface AttentionParts extends Pick<CachedAttention, 'heads' | 'keyHeads' | 'window' | 'sinks' | 'scale'> {
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

const unitInputs = ({ unitNorm, unit }: LayerParts) => {
  const together = mapsTogether([unit.maps.gate_proj, unit.maps.up_proj, unit.maps.down_proj])
  const norm = unitNorm.rms.weight
  if (!together || isTraced(norm)) return undefined
  const attributes = { activation: unit.activation, eps: unitNorm.rms.eps, forms: together.forms }
  return { inputs: { norm, ...together.inputs }, attributes }
}

/** One layer's share of what the kernel is given, and the cache that it leaves; nothing where a part has a way back of its own. */
const shareOf = (x: tf.Tensor3D, parts: LayerParts, past: LayerCache | undefined, shared: Shared) => {
  const { maps, ...heads } = parts.attention
  const unit = unitInputs(parts)
  const attention = unit && branchStep(x, parts.attentionNorm, maps, past, { ...shared, ...heads })
  return attention && { attention, unit }
}

/**
 * All layers of a decoder in one step, `[B, L, D] → [B, L, D]`, and their caches: while a model decodes, what surrounds the ops of a
 * layer takes as long as half of what is computed. Nothing where the engine has no kernel for it, or a gradient is wanted: then the
 * layers are to be run one by one, with the same result.
 */
export const layersTogether = (
  x: tf.Tensor3D,
  layers: readonly (LayerParts | undefined)[],
  caches: readonly LayerCache[] | undefined,
  shared: Shared
): { readonly hidden: tf.Tensor3D; readonly cache: readonly LayerCache[] } | undefined => {
  if (!hasKernel('DecoderLayers') || isTraced(x)) return undefined
  const shares = []
  for (const [i, parts] of layers.entries()) {
    const share = parts && shareOf(x, parts, caches?.[i], shared)
    if (!share) return undefined
    shares.push(share)
  }
  const attributes = { layers: shares } as unknown as tf.NamedAttrMap // with the tensors in them: naming some hundred of them anew takes time
  const results = tf.engine().runKernel('DecoderLayers', { x }, attributes) as unknown as tf.Tensor[]
  const [hidden, ...grown] = results as [tf.Tensor3D, ...tf.Tensor4D[]]
  return { hidden, cache: shares.map(({ attention }, i) => attention.grown(grown[2 * i]!, grown[2 * i + 1]!)) }
}
