import fc from 'fast-check'
import { getOrThrow } from '../../lib/error.js'
import { parseConfig, type VisionConfig } from '../../models/config/parse-config.js'
import { count } from './tensor.js'

/** Small vision towers with every option; tiles of an even number of patches a side. */
export const visionConfig: fc.Arbitrary<VisionConfig> = fc
  .record({
    heads: count(3),
    half: count(2),
    layers: count(3),
    width: count(5),
    side: fc.constantFrom(2, 4),
    patch: count(3),
    norm_type: fc.constantFrom('layer_norm', 'rms_norm'),
    hidden_act: fc.constantFrom('gelu', 'quick_gelu'),
    attention_bias: fc.boolean(),
    use_qk_norm: fc.boolean(),
    use_mask_token: fc.boolean(),
    use_absolute_position_embeddings: fc.boolean(),
    use_mean_pooling: fc.boolean()
  })
  .map(({ heads, half, layers, width, side, patch, ...options }) => {
    const vision_config = {
      ...options,
      hidden_size: 2 * half * heads,
      num_attention_heads: heads,
      num_hidden_layers: layers,
      intermediate_size: width,
      image_size: side * patch,
      patch_size: patch
    }
    return getOrThrow(parseConfig({ model_type: 'internvl', vision_config, text_config: { model_type: 'qwen2' } })).visionConfig
  })

/** Patches of a tile, and its side in pixels. */
export const gridOf = ({ imageSize: [side], patchSize: [patch] }: VisionConfig) => ({ side, patches: (side / patch) ** 2 })
