import type { Module } from '../../lib/module.js'
import type { KeyTemplates } from '../checkpoint/keys.js'
import type { Fields, Json } from '../config/config-fields.js'
import type { VisionConfig } from '../config/config-types.js'
import type { visionTower } from './vision.js'

/** The module of a vision tower. The parameter tree is typed as that of InternViT, the tower of every released checkpoint. */
export type VisionModule = ReturnType<typeof visionTower>

/**
 * A vision tower that a configuration may name, and the facts about the tower that the library needs; its line in
 * `models/internvl/vision-towers.ts` registers the tower.
 */
export interface VisionFamily {
  /** `VisionConfig.modelType`. */
  readonly modelType: string
  /** `model_type` of `vision_config`, by dialect; the first is written. */
  readonly modelTypes: { readonly hf: readonly string[]; readonly original: readonly string[] }
  /** Changes the parsed configuration by the fields that only this tower has. */
  readonly ownConfig?: (f: Fields, common: VisionConfig) => VisionConfig
  /** The JSON of these fields. */
  readonly ownJson?: (c: VisionConfig) => Json
  /** The module: the tree of parameters under `model.vision_tower`, and `(pixelValues, options) => VisionOutput`. */
  readonly build: (c: VisionConfig) => Module
  /** OpenGVLab's names of the tower's tensors, for a tower that OpenGVLab published. */
  readonly originalKeys?: KeyTemplates
}
