import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Issue, type Issues, issue, nameText, valueText, whenValid } from '../../lib/error.js'
import type { TensorFiles } from '../../lib/safetensors/read.js'
import type { Planned } from '../checkpoint/fuse.js'
import { planByRules } from '../checkpoint/layout.js'
import { keyIssues, openCheckpoint } from '../checkpoint/open-checkpoint.js'
import { openWeights } from '../checkpoint/open-weights.js'
import { fieldsOf, type Json } from '../config/config-fields.js'
import type { VisionConfig } from '../config/config-types.js'
import type { InternVLConfig } from '../config/model-config.js'
import { configBounds } from '../config/number-bounds.js'
import { readConfigJson } from '../config/parse-config.js'
import { modelTypes } from '../families.js'
import { internVLParts } from '../internvl/internvl-keys.js'
import { visionTowerFor } from '../internvl/vision-towers.js'
import { type TowerFormat, towerFormats } from './tower-formats.js'

/** A vision tower of which only the headers of its files are read. Close `files` after use. */
export interface VisionPart {
  readonly dir: string
  readonly config: VisionConfig
  readonly files: TensorFiles
  /** The tower's tensors under their keys in the whole model. */
  readonly plan: readonly Planned[]
  /** Value of the layer scales of a tower that has none. */
  readonly layerScale: number | undefined
  /** The hidden state that the projector reads. */
  readonly featureLayer: InternVLConfig['visionFeatureLayer']
}

const prefix = `${internVLParts.vision}.`
const noHeads = { numAttentionHeads: 1, numKeyValueHeads: 1, headDim: 1 } // towers fuse thirds, which need no head counts

/** Keys of the layer scales, which a tower without them lacks. */
export const layerScaleKeys = ({ numHiddenLayers }: VisionConfig): readonly string[] =>
  Array.from({ length: numHiddenLayers }, (_, i) => [1, 2].map((n) => `${prefix}encoder.layer.${i}.lambda_${n}`)).flat()

const towerIssues = ({ dir, config, plan, layerScale }: VisionPart): readonly Issue[] => {
  const added = layerScale === undefined ? [] : layerScaleKeys(config)
  const shape = [config.hiddenSize]
  const complete = [...plan, ...added.map((key): Planned => ({ key, dtype: 'F32', shape, parts: [] }))]
  return keyIssues(visionTowerFor(config), complete, prefix).map((found) => ({ ...found, message: `${dir}: ${found.message}` }))
}

/** Refuses towers that InternViT's module cannot hold. */
const shapeOfImages = (dir: string, { imageSize, patchSize, useAbsolutePositionEmbeddings }: VisionConfig): readonly Issue[] => {
  const isSquare = [imageSize, patchSize].every(([height, width]) => height === width)
  const what = !isSquare ? 'image_size and patch_size should be squares' : 'use_absolute_position_embeddings should be true'
  return isSquare && useAbsolutePositionEmbeddings
    ? []
    : [issue('TowerUnsupported', `${dir}/config.json: ${what}`, { file: dir })]
}

const unprefixed = (files: TensorFiles, start: string | undefined): TensorFiles => {
  if (start === undefined) return files
  const shorten = (key: string): string => (key.startsWith(start) ? key.slice(start.length) : key)
  return { ...files, entries: new Map([...files.entries].map(([key, entry]) => [shorten(key), { ...entry, key: shorten(key) }])) }
}

/** A tower alone, in one of the forms of `towerFormats`. */
const openTower = (dir: string, json: Json, format: TowerFormat): TE.TaskEither<Issues, VisionPart> => {
  const issues: Issue[] = []
  const config = format.config(fieldsOf(json, join(dir, 'config.json'), issues, '', configBounds))
  return pipe(
    TE.fromEither(whenValid([...issues, ...shapeOfImages(dir, config)], () => undefined)),
    TE.chain(() => openWeights(dir)),
    TE.map((files) => unprefixed(files, format.prefix)),
    TE.chainEitherK((files) => {
      const stored = [...files.entries.values()].filter(({ key }) => !format.ignored.test(key))
      return pipe(
        planByRules(format.rules, stored, noHeads),
        E.map((plan) => ({ dir, config, files, plan, layerScale: format.layerScale, featureLayer: -1 }))
      )
    })
  )
}

/** The tower of a whole InternVL. */
const openFromModel = (dir: string): TE.TaskEither<Issues, VisionPart> =>
  pipe(
    openCheckpoint(dir),
    TE.map(({ config, files, plan }) => ({
      ...{ dir, config: config.visionConfig, files, layerScale: undefined },
      plan: plan.filter(({ key }) => key.startsWith(prefix)),
      featureLayer: config.visionFeatureLayer
    }))
  )

const unknownTower = (dir: string, type: unknown): Issues => {
  const known = towerFormats.map(({ modelType }) => modelType).join(', ')
  const message = `${dir}/config.json: model_type is ${valueText(type)}; a vision tower is an InternVL folder, or ${known}`
  return [issue('TowerUnsupported', message, { file: dir, actual: type })]
}

/** The part where its tensors are those of the tower; otherwise its files are closed. */
const checked =
  (part: VisionPart): TE.TaskEither<Issues, VisionPart> =>
  async () => {
    const result = whenValid(towerIssues(part), () => part)
    if (E.isLeft(result)) await part.files.close()
    return result
  }

/**
 * Opens a vision tower: of an InternVL folder in any layout, or of a folder of the tower alone (InternViT in both layouts, DINOv2, ViT).
 * Errors: those of config.json and of the weight files; `TowerUnsupported`; `MissingKey`, `UnexpectedKey`, `ShapeMismatch`.
 */
export const openVision = (dir: string): TE.TaskEither<Issues, VisionPart> =>
  pipe(
    readConfigJson(dir),
    TE.chain((json) => {
      const type = json.model_type
      if (modelTypes.includes(nameText(type))) return openFromModel(dir)
      const format = towerFormats.find(({ modelType }) => modelType === type)
      return format ? openTower(dir, json, format) : TE.left(unknownTower(dir, type))
    }),
    TE.chain(checked)
  )
