import { getOrThrow, orThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import type { ProcessorConfig } from '../../processors/config/processor-config.js'
import type { OpenOptions } from '../../processors/image/image.js'
import { openVideoTiles } from '../../processors/media/open-media.js'
import { loadProcessor } from '../../processors/processor.js'
import { type ImageOptions, type VideoOptions, withOptions } from '../../processors/processor-options.js'
import type { VideoSource } from '../../processors/text/messages.js'
import { frameIndices, type VideoMetadata } from '../../processors/video/frame-sampling.js'
import { type HubOptions, modelFolder } from '../hub/index.js'

/** Normalized frames of videos. */
export interface VideoFeature {
  /** `[frames, 3, height, width]` of each video. Videos may differ in length, unlike in Transformers. */
  readonly pixelValuesVideos: readonly tf.Tensor4D[]
  readonly dispose: () => void
}

/** `InternVLVideoProcessor` of Transformers: samples, resizes and normalizes frames. */
export class InternVLVideoProcessor {
  constructor(readonly config: ProcessorConfig) {}

  /** Loads the video settings of a checkpoint folder, or of `org/name` of the hub. */
  static async fromPretrained(name: string, options: HubOptions = {}): Promise<InternVLVideoProcessor> {
    const { config } = await orThrow(loadProcessor(await orThrow(modelFolder(name, options))))
    return new InternVLVideoProcessor(config)
  }

  /** Indices of the sampled frames. Source: `sample_frames` (transformers 5.24). */
  sampleFrames(metadata: VideoMetadata, options: VideoOptions = {}): readonly number[] {
    return getOrThrow(frameIndices(metadata, withOptions(this.config, options).video))
  }

  /** Reads videos as normalized frames. Throws an `InternVLError` for a video or an image that cannot be read. */
  async process(videos: readonly VideoSource[], options: ImageOptions & VideoOptions & OpenOptions = {}): Promise<VideoFeature> {
    const { video } = withOptions(this.config, options)
    const pixelValuesVideos: tf.Tensor4D[] = []
    const dispose = () => tf.dispose(pixelValuesVideos)
    try {
      for (const source of videos) {
        const { tiles, tileSize, write } = await orThrow(openVideoTiles(source, undefined, video, options))
        const data = new Float32Array(tiles * 3 * tileSize.height * tileSize.width)
        await orThrow(write(data, 0))
        pixelValuesVideos.push(tf.tensor4d(data, [tiles, 3, tileSize.height, tileSize.width]))
      }
    } catch (error) {
      dispose()
      throw error
    }
    return { pixelValuesVideos, dispose }
  }
}
