import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../lib/error.js'
import { module } from '../../lib/module.js'
import { buildParams, disposeParams } from '../../lib/params.js'
import type { tf } from '../../lib/tf.js'
import { type LoadModelOptions, openAndBuild, readTensors } from '../checkpoint/load-model.js'
import { checkMemory } from '../checkpoint/memory-check.js'
import { inFolder, keyIssues, type OpenCheckpoint } from '../checkpoint/open-checkpoint.js'
import type { InternVLConfig } from '../config/parse-config.js'
import { keepsStored, precisionIssues } from '../quantization/weight-formats.js'
import { featuresOf, inChunks } from './internvl.js'
import { projector } from './projector.js'
import { poolVision, type VisionOptions, type VisionOutput, visionTower } from './vision.js'

/** A model's eye alone: `forward`, and what is made of it. */
export interface VisionEncoder {
  /** Tiles `[T, C, H, W]` to states `[T, 1 + patches, D]`. */
  (pixelValues: tf.Tensor4D, options?: VisionOptions): VisionOutput
  /** One vector a tile, `[T, D]`; see `poolVision`. Many tiles go in turns. */
  readonly pooled: (pixelValues: tf.Tensor4D) => tf.Tensor2D
  /** What the decoder would read, `[T, N, D']`. */
  readonly features: (pixelValues: tf.Tensor4D) => tf.Tensor3D
}

/** The vision tower and the projector, under their keys in the whole model. */
export const visionEncoder = (c: InternVLConfig) =>
  module({ vision_tower: visionTower(c.visionConfig), multi_modal_projector: projector(c) }, (self): VisionEncoder => {
    const pool = (tiles: tf.Tensor4D) => poolVision(c.visionConfig, self.vision_tower(tiles).lastHiddenState)
    const forward = (pixelValues: tf.Tensor4D, options?: VisionOptions) => self.vision_tower(pixelValues, options)
    return Object.assign(forward, {
      pooled: (pixelValues: tf.Tensor4D) => inChunks(c.visionConfig, pixelValues, pool),
      features: featuresOf(c, self.vision_tower, self.multi_modal_projector)
    })
  })

type VisionParams = Parameters<ReturnType<typeof visionEncoder>['apply']>[0]

/** A vision encoder from a folder. `dispose` frees its parameters. */
export interface LoadedVision {
  readonly config: InternVLConfig
  readonly params: VisionParams
  readonly encoder: VisionEncoder
  readonly dispose: () => void
}

const prefixes = ['model.vision_tower.', 'model.multi_modal_projector.'] as const

const build = async (checkpoint: OpenCheckpoint, given: LoadModelOptions): Promise<E.Either<Issues, LoadedVision>> => {
  const { dir, config, files, plan } = checkpoint
  const options = { ...given, asStored: keepsStored(plan, given) } // also where none of the eye is packed
  const seeing = plan.filter(({ key }) => prefixes.some((prefix) => key.startsWith(prefix)))
  const encoder = visionEncoder(config)
  const problems = [...keyIssues(encoder, seeing, 'model.'), ...precisionIssues(seeing, options)]
  if (problems.length > 0) return E.left(inFolder(dir, problems))
  const short = await checkMemory(encoder, seeing, options, 'model.')
  if (short) return E.left(inFolder(dir, [short]))
  const tensors = await readTensors(files, encoder, seeing, options, 'model.')
  const params = buildParams(encoder, (path) => tensors.get(`model.${path}`)!)
  const dispose = () => disposeParams(params)
  return E.right({ config, params, encoder: encoder.apply(params), dispose })
}

/** Opens the vision tower and projector of a checkpoint folder, in any layout; the decoder's weights are not read. */
export const loadVision = (dir: string, options: LoadModelOptions = {}): TaskEither<Issues, LoadedVision> =>
  openAndBuild(dir, options, build)
