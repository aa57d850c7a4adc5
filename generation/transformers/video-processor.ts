import { getOrThrow, orThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import type { ProcessorConfig } from '../../processors/config/processor-config.js'
import type { OpenOptions } from '../../processors/image/image.js'
import { openVideo } from '../../processors/media/open-media.js'
import { loadProcessor } from '../../processors/processor.js'
import { type ImageOptions, type VideoOptions, withOptions } from '../../processors/processor-options.js'
import type { VideoSource } from '../../processors/text/messages.js'
import type { VideoMetadata } from '../../processors/video/film.js'
import { frameIndices } from '../../processors/video/video.js'
import { type HubOptions, modelFolder } from '../hub/index.js'

/** The frames of films as the model takes them. */
export interface VideoFeature {
  /** `[frames, 3, height, width]` of each film: films may differ in length, where Transformers refuses. */
  readonly pixelValuesVideos: readonly tf.Tensor4D[]
  readonly dispose: () => void
}

/** `InternVLVideoProcessor` of Transformers: which frames, how large, and as which numbers. */
export class InternVLVideoProcessor {
  constructor(readonly config: ProcessorConfig) {}

  /** The settings for films of a checkpoint folder, or of `org/name` on the hub. */
  static async fromPretrained(name: string, options: HubOptions = {}): Promise<InternVLVideoProcessor> {
    const { config } = await orThrow(loadProcessor(await orThrow(modelFolder(name, options))))
    return new InternVLVideoProcessor(config)
  }

  /** Indices of the frames that would be taken. Source: `sample_frames` (transformers 5.23). */
  sampleFrames(metadata: VideoMetadata, options: VideoOptions = {}): readonly number[] {
    return getOrThrow(frameIndices(metadata, withOptions(this.config, options).video))
  }

  /** A list of films to normalised frames. Throws an `InternVLError` for a film or a picture that cannot be read. */
  async process(videos: readonly VideoSource[], options: ImageOptions & VideoOptions & OpenOptions = {}): Promise<VideoFeature> {
    const { video } = withOptions(this.config, options)
    const pixelValuesVideos: tf.Tensor4D[] = []
    for (const film of videos) {
      const { tiles, tileSize, write } = await orThrow(openVideo(film, undefined, video, options))
      const data = new Float32Array(tiles * 3 * tileSize.height * tileSize.width)
      await orThrow(write(data, 0))
      pixelValuesVideos.push(tf.tensor4d(data, [tiles, 3, tileSize.height, tileSize.width]))
    }
    return { pixelValuesVideos, dispose: () => tf.dispose(pixelValuesVideos) }
  }
}
