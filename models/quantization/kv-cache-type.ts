import type { KVCacheType } from '../../lib/nn/attention/kv-cache.js'
import { usesTensorflowOps } from '../../lib/ops/kernel.js'
import { namedParameters } from '../../lib/params.js'
import type { InternVL } from '../internvl/internvl.js'
import { packedProductType } from './activations.js'
import type { Activations } from './precision.js'
import { hasPackedWeights, isQuantized } from './quantized-keys.js'

/**
 * The type of the KV cache where none is chosen: bfloat16 if a weight is quantized to 8 bits or fewer, else float32. With TensorFlow's ops
 * it has 16 bits if any weight has, in float16 where the products are.
 */
export const defaultKVCacheType = (params: unknown, activations?: Activations): KVCacheType => {
  if (usesTensorflowOps() && hasPackedWeights(params))
    return packedProductType(params, activations) === 'float16' ? 'float16' : 'bfloat16'
  return isQuantized(namedParameters(params).map(([key]) => ({ key }))) ? 'bfloat16' : 'float32'
}

/** The model with another type of new KV caches where a call does not choose one. */
export const withKVCacheType = (model: InternVL, kvCache: KVCacheType): InternVL => {
  const { imageFeatures, embed, flash } = model
  const forward: InternVL = Object.assign(
    (...[inputs, options]: Parameters<InternVL>) => model(inputs, { kvCache, ...options }),
    {
      imageFeatures,
      embed,
      ...(flash ? { flash } : {}),
      decode: (...[embeds, options]: Parameters<InternVL['decode']>) => model.decode(embeds, { kvCache, ...options })
    }
  )
  return forward
}
