import { isRecording } from '../../autograd/tape.js'
import { isTapped } from '../../module.js'
import { hasKernel, runKernel } from '../../ops/kernel.js'
import type { tf } from '../../tf.js'
import { appendToCache, grownCapacity, type LayerCache } from '../attention/kv-cache.js'
import { type AttentionContext, type AttentionParts, attentionBlockInputs } from '../attention/self-attention.js'
import type { GatedMlpParts } from '../gated-linear-unit.js'
import { fusedInputs } from '../linear.js'
import type { RmsNorm } from '../norm.js'

/** Description of a pre-norm decoder layer for fused kernels: `h = x + attention(norm(x))`, `h + mlp(norm(h))`. */
export interface DecoderLayerParts {
  readonly attentionNorm: RmsNorm
  readonly attention: AttentionParts
  readonly mlpNorm: RmsNorm
  readonly mlp: GatedMlpParts
}

/** Inputs and attributes of a layer that are the same at every step; `undefined` where a part needs a gradient or has LoRA. */
const staticInputs = ({ attentionNorm, attention, mlpNorm, mlp }: DecoderLayerParts) => {
  if ('gate_up_proj' in mlp.projections) return undefined
  const { gate_proj, up_proj, down_proj } = mlp.projections
  const block = attentionBlockInputs(attentionNorm, attention)
  const shared = fusedInputs([gate_proj, up_proj, down_proj])
  if (!block || !shared) return undefined
  const attributes = { activation: mlp.activation, eps: mlpNorm.eps, formats: shared.formats }
  return { attention: block, mlp: { inputs: { norm: mlpNorm.weight, ...shared.inputs }, attributes } }
}
type StaticInputs = NonNullable<ReturnType<typeof staticInputs>>

/** The list without its type's `undefined`, or `undefined` where an element is. */
const allDefined = <A>(all: ReadonlyArray<A | undefined>): readonly A[] | undefined =>
  all.every((x): x is A => x !== undefined) ? all : undefined

/**
 * All layers of a decoder and the final norm in one kernel: `[B, L, D] → [B, L, D]`, and the caches of the layers. While a model
 * decodes, the overhead of the ops takes half as long as the computation. The result is `undefined` where the engine has no such
 * kernel, a layer cannot be fused, or a gradient is wanted: then the layers run one by one, with the same result. The static inputs are
 * collected once.
 */
export const fusedDecoder = (layers: ReadonlyArray<DecoderLayerParts | undefined>, norm: RmsNorm) => {
  const parts = allDefined(layers)
  let fixed: readonly StaticInputs[] | false | undefined // collected at the first call
  return (
    x: tf.Tensor3D,
    caches: readonly LayerCache[] | undefined,
    { segments, ...context }: Omit<AttentionContext, 'cache' | 'outputAttentions'>
  ): { readonly hidden: tf.Tensor3D; readonly cache: readonly LayerCache[] } | undefined => {
    if (!parts || isTapped(norm) || !hasKernel('DecoderLayers') || isRecording() || segments) return undefined
    if (caches?.some(({ length, type }) => length !== caches[0]!.length || type !== caches[0]!.type)) return undefined
    fixed ??= allDefined(parts.map(staticInputs)) ?? false
    if (!fixed) return undefined
    const [B, L] = x.shape
    const steps = fixed.map(({ attention: { attributes, headDim } }, i) =>
      appendToCache(caches?.[i], [B, attributes.numKeyValueHeads, L, headDim], context, grownCapacity(L))
    )
    const cache = steps.map(({ cache }) => cache)
    const attributes = {
      ...steps[0]!.attributes,
      headDim: fixed[0]!.attention.headDim,
      layers: fixed,
      norm: { weight: norm.weight, eps: norm.eps },
      numLayers: fixed.length,
      eps: norm.eps,
      caches: cache.flatMap(({ key, value }) => [key, value])
    }
    const { cos, sin } = context.rope
    return { hidden: runKernel('DecoderLayers', { x, cos, sin, mask: context.padding }, attributes), cache }
  }
}
