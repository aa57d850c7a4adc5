import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../lib/error.js'
import { module } from '../../lib/module.js'
import { buildParams, disposeParams } from '../../lib/params.js'
import type { tf } from '../../lib/tf.js'
import { type LoadModelOptions, loadTensors, openAndBuild } from '../checkpoint/load-model.js'
import type { OpenCheckpoint } from '../checkpoint/open-checkpoint.js'
import type { InternVLConfig } from '../config/model-config.js'
import { withCustomParts } from '../parts/custom-parts.js'
import { withActivations } from '../quantization/activations.js'
import { keepsStoredType } from '../quantization/weight-formats.js'
import { imageFeatureExtractor, inTileBatches } from './internvl.js'
import { internVLParts } from './internvl-keys.js'
import { projector } from './projector.js'
import { poolVision, type VisionOptions, type VisionOutput } from './vision.js'
import { visionTowerFor } from './vision-towers.js'

/** The forward of the vision encoder (vision tower and projector), and its pooled output and image features. */
export interface VisionEncoder {
  /** Tiles `[T, C, H, W]` to states `[T, 1 + patches, D]`. */
  (pixelValues: tf.Tensor4D, options?: VisionOptions): VisionOutput
  /** One vector for each tile, `[T, D]`; see `poolVision`. Many tiles run in batches. */
  readonly pooled: (pixelValues: tf.Tensor4D) => tf.Tensor2D
  /** Image features, the input of the decoder, `[T, N, D']`. */
  readonly features: (pixelValues: tf.Tensor4D) => tf.Tensor3D
}

/** The vision tower and the projector, under their keys in the whole model. */
export const visionEncoder = (c: InternVLConfig) => withCustomParts(encoderModule(c), c, 'model.')

const encoderModule = (c: InternVLConfig) =>
  module({ vision_tower: visionTowerFor(c.visionConfig), multi_modal_projector: projector(c) }, (self): VisionEncoder => {
    const pool = (tiles: tf.Tensor4D) => poolVision(c.visionConfig, self.vision_tower(tiles).lastHiddenState)
    const forward = (pixelValues: tf.Tensor4D, options?: VisionOptions) => self.vision_tower(pixelValues, options)
    return Object.assign(forward, {
      pooled: (pixelValues: tf.Tensor4D) => inTileBatches(c.visionConfig, pixelValues, pool),
      features: imageFeatureExtractor(c, self.vision_tower, self.multi_modal_projector)
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

const parts = [internVLParts.vision, internVLParts.projector]

const build = (checkpoint: OpenCheckpoint, given: LoadModelOptions): TE.TaskEither<Issues, LoadedVision> => {
  const { config, plan } = checkpoint
  const options = { ...given, asStored: keepsStoredType(plan, given) } // by the whole plan: its decoder may be quantized alone
  const planned = plan.filter(({ key }) => parts.some((part) => key.startsWith(`${part}.`)))
  const encoder = visionEncoder(config)
  return pipe(
    loadTensors(checkpoint, encoder, planned, options, 'model.'),
    TE.map((tensors) => {
      const params = buildParams(encoder, (path) => tensors.get(`model.${path}`)!)
      return {
        config,
        params,
        encoder: withActivations(encoder.apply(params), given.activations, params),
        dispose: () => disposeParams(params)
      }
    })
  )
}

/** Opens the vision tower and projector of a checkpoint folder, in any layout; the decoder's weights are not read. */
export const loadVision = (dir: string, options: LoadModelOptions = {}): TE.TaskEither<Issues, LoadedVision> =>
  openAndBuild(dir, options, build)
