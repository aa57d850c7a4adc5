import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Issues } from '../../lib/error.js'
import { isRecord } from '../../lib/plain-object.js'
import { readProcessorFolder } from '../../processors/config/checkpoint-folder.js'
import { decodeProcessorConfig, isOriginal, type ProcessorConfig } from '../../processors/config/processor-config.js'

/** Fields of a preprocessor_config.json that say how pixels become numbers, which a tower was trained with. */
const pixelFields = ['resample', 'do_rescale', 'rescale_factor', 'do_normalize', 'image_mean', 'image_std']

// Source: `IMAGENET_MEAN`, `IMAGENET_STD` (OpenGVLab/InternVL), with which InternViT and DINOv2 were trained
const IMAGENET = { image_mean: [0.485, 0.456, 0.406], image_std: [0.229, 0.224, 0.225] }

/**
 * Processor settings for a vision tower: pixels as the tower's folder says, by default ImageNet's mean and deviation, in tiles of `side`
 * pixels. Errors: invalid fields of the tower's processor files.
 */
export const visionPixels =
  (
    dir: string,
    { side, imageSeqLength, maxPatches }: { side: number; imageSeqLength: number; maxPatches: number | undefined }
  ): TaskEither<Issues, ProcessorConfig> =>
  async () => {
    const folder = await readProcessorFolder(dir)
    const nested = isRecord(folder.processor) ? folder.processor.image_processor : undefined
    const section = nested ?? folder.preprocessor
    const fields = isRecord(section) ? Object.entries(section).filter(([name]) => pixelFields.includes(name)) : []
    const preprocessor = {
      ...(isOriginal(folder.config) || fields.length === 0 ? IMAGENET : {}),
      ...Object.fromEntries(fields),
      size: { height: side, width: side },
      ...(maxPatches === undefined ? {} : { max_patches: maxPatches })
    }
    return pipe(
      decodeProcessorConfig({ dir, preprocessor }),
      E.map((config) => ({ ...config, imageSeqLength }))
    )
  }
