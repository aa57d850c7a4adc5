import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { assemble } from '../../generation/assemble/assemble.js'
import { realTower } from './real-tower.js'
import type { RealWeights } from './real-weights.js'

/**
 * A checkpoint folder of a model with learned weights, beside the fetched packages: SmolLM2-135M as decoder, DINOv2-small as vision tower
 * for tiles of `imageSize` pixels, and a projector that is not trained. Written at the first call, as a whole.
 */
export const realModel = async (weights: RealWeights, imageSize = 224): Promise<string> => {
  const out = join(dirname(dirname(weights.smollm2)), `assembled-${imageSize}`)
  if (existsSync(join(out, 'model.safetensors'))) return out
  await assemble({ vision: await realTower(weights), decoder: weights.smollm2, out, imageSize, seed: 1, maxPatches: 1 })
  return out
}
