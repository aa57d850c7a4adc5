import type { InternVLConfig } from '../config/model-config.js'
import { internVLParts } from './internvl-keys.js'

/**
 * Layer-wise learning-rate decay of the vision tower: the factor on the learning rate of a parameter, by path. The factor is `decay` for the
 * last of n layers, `decay ** n` for the first, `decay ** (n + 1)` for the embeddings, and 1 outside the tower.
 * Throws a `RangeError` when the decay is not in (0, 1].
 * Source: `create_optimizer` of OpenGVLab's `trainer_monkey_patch.py`, `VIT_LAYER_DECAY_RATE`.
 */
export const visionLayerDecay = ({ visionConfig: { numHiddenLayers: n } }: InternVLConfig, decay: number) => {
  if (!(decay > 0 && decay <= 1)) throw new RangeError(`visionLayerDecay: the decay must be above 0 and at most 1, got ${decay}`)
  return (path: string): number => {
    if (!path.startsWith(`${internVLParts.vision}.`)) return 1
    const layer = /\.encoder\.layer\.(\d+)\./.exec(path)?.[1]
    const below = layer !== undefined ? Number(layer) + 1 : path.includes('.embeddings.') ? 0 : n + 1
    return decay ** (n + 1 - below)
  }
}
