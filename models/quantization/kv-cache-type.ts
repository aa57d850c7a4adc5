import type { KVCacheType } from '../../lib/nn/kv-cache.js'
import { usesTensorflowOps } from '../../lib/ops/kernel.js'
import { namedParameters } from '../../lib/params.js'
import type { InternVL } from '../internvl/internvl.js'
import { hasPackedWeights, isQuantized } from './quantized-keys.js'

/**
 * The type of the KV cache where none is chosen: bfloat16 if a weight is quantized to 8 bits or fewer, and with TensorFlow's ops if one has
 * 16, else float32.
 */
export const defaultKVCacheType = (params: unknown): KVCacheType =>
  isQuantized(namedParameters(params).map(([key]) => ({ key }))) || (usesTensorflowOps() && hasPackedWeights(params))
    ? 'bfloat16'
    : 'float32'

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
