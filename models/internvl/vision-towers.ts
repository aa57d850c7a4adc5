import type { VisionConfig } from '../config/config-types.js'
import { internVit, qianfanOcrVision } from './intern-vit.js'
import type { VisionFamily, VisionModule } from './vision-family.js'

/** Every vision tower that a configuration may name. Add a tower with its file and a line here; the first is the default. */
// biome-ignore format: one line for each tower
export const visionTowers: readonly [VisionFamily, ...VisionFamily[]] = [
  internVit,
  qianfanOcrVision
]

/** The tower that `model_type` names, or the default: published files have various names for InternViT. */
export const visionFamilyOf = (modelType: string | undefined): VisionFamily =>
  visionTowers.find(
    (tower) =>
      modelType !== undefined && [tower.modelType, ...tower.modelTypes.hf, ...tower.modelTypes.original].includes(modelType)
  ) ?? visionTowers[0]

/** The module of the vision tower that a configuration names. */
export const visionTowerFor = (c: VisionConfig): VisionModule => visionFamilyOf(c.modelType).build(c) as VisionModule
