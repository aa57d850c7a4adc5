import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { selectEngine } from '../lib/engines/index.js'
import { distinctIssues, getOrThrow, orThrow, validation, valueText } from '../lib/error.js'
import { tf } from '../lib/tf.js'
import { type LoadedVision, loadVision } from '../models/internvl/vision-encoder.js'
import type { ImageConfig } from '../processors/config/processor-config.js'
import type { ImageSource, OpenOptions } from '../processors/image/image.js'
import { openImageTiles } from '../processors/media/open-media.js'
import { loadProcessor } from '../processors/processor.js'
import { MAX_PATCHES } from '../processors/processor-options.js'
import { disposeOnce, throwsWhenDisposed } from './checkpoint/disposable.js'
import { demoModel, type LoadOptions } from './checkpoint/load.js'
import { partFamilies } from './checkpoint/part-modules.js'
import { modelFolder } from './hub/index.js'

/** Vision tower and projector of a checkpoint, with the settings of its image processor. `dispose` frees the parameters. */
export interface VisionCheckpoint extends LoadedVision {
  readonly dir: string
  readonly image: ImageConfig
}

/**
 * Loads the vision tower and the projector of a checkpoint, a folder or `org/name` of the hub; by default the embedded demo
 * model. The decoder's weights are not read. Throws an `InternVLError`.
 */
export const loadVisionEncoder = async (
  name: string = demoModel,
  options: Omit<LoadOptions, 'adapter'> = {}
): Promise<VisionCheckpoint> => {
  const dir = await orThrow(modelFolder(name, options))
  await selectEngine(options)
  const parts = await partFamilies(options.parts)
  const [processor, vision] = [await loadProcessor(dir, options)(), await loadVision(dir, { ...options, parts })()]
  const both = pipe(sequenceS(validation)({ processor, vision }), E.mapLeft(distinctIssues))
  if (E.isLeft(both) && E.isRight(vision)) vision.right.dispose()
  const loaded = getOrThrow(both)
  const parameters = disposeOnce(loaded.vision.dispose)
  return {
    ...loaded.vision,
    encoder: throwsWhenDisposed(loaded.vision.encoder, parameters),
    dispose: parameters.dispose,
    dir,
    image: loaded.processor.config.image
  }
}

/** Embeddings of images: one vector, the image tokens of the decoder, or a hidden state of the vision tower. */
export interface Embeddings {
  /** `[T, D]` pooled, or the shape that `EmbedOptions` state; T tiles of all images in order. The caller disposes the tensor. */
  readonly values: tf.Tensor
  /** Number of tiles of each image. */
  readonly tiles: readonly number[]
}

export interface EmbedOptions extends OpenOptions {
  /** The projector's output, all image tokens of a tile `[T, N, D]`, instead of one vector. */
  readonly projected?: boolean
  /** The hidden states after this many layers (0: the embeddings), `[T, L, D]`, instead of one vector. */
  readonly hiddenStates?: number | undefined
  /** The attention weights of the layer with this index, `[T, H, L, L]`, instead of one vector. */
  readonly attentions?: number | undefined
  /** Maximum tiles of an image: 1 by default, the whole image; with more, each tile has a row of its own. */
  readonly maxPatches?: number
}

/** The tiles of one image, `[T, 3, height, width]`. */
const readTiles = async (source: ImageSource, config: ImageConfig, options: OpenOptions): Promise<tf.Tensor4D> => {
  const visual = await orThrow(openImageTiles(source, config, options))
  const { width, height } = visual.tileSize
  const pixels = new Float32Array(visual.tiles * 3 * width * height)
  await orThrow(visual.write(pixels, 0))
  return tf.tensor4d(pixels, [visual.tiles, 3, height, width])
}

/** The function from tiles to the requested output. Throws a `RangeError` for two outputs at once, or a layer that does not exist. */
const encoderOutput = ({ encoder, config }: LoadedVision, { projected, hiddenStates, attentions }: EmbedOptions) => {
  const requested = Object.entries({ projected: projected || undefined, hiddenStates, attentions })
  const [first, second] = requested.flatMap(([name, value]) => (value === undefined ? [] : [name]))
  if (second) throw new RangeError(`${first} and ${second} exclude each other: give one of them`)
  const { numHiddenLayers: layers } = config.visionConfig
  const layerOf = (name: string, value: number, last: number): number => {
    if (Number.isInteger(value) && value >= 0 && value <= last) return value
    throw new RangeError(`${name}: expected an integer from 0 to ${last}, got ${valueText(value)}`)
  }
  if (hiddenStates !== undefined) {
    const layer = layerOf('hiddenStates', hiddenStates, layers)
    return (tiles: tf.Tensor4D): tf.Tensor =>
      tf.tidy(() => encoder(tiles, { outputHiddenStates: true }).hiddenStates![layer]!.clone())
  }
  if (attentions !== undefined) {
    const outputAttentions = layerOf('attentions', attentions, layers - 1)
    return (tiles: tf.Tensor4D): tf.Tensor => tf.tidy(() => encoder(tiles, { outputAttentions }).attentions![0]!)
  }
  return projected ? encoder.features : encoder.pooled
}

/**
 * Embeddings of images by the vision tower: the mean over its patches, or its class token, as the configuration says
 * (`poolVision`). Throws an `InternVLError` for an image that cannot be read, and a `RangeError` for options.
 *
 * `const { values } = await embed(await loadVisionEncoder(), ['a.png', 'b.jpg'])`
 */
export const embed = async (
  vision: VisionCheckpoint,
  images: readonly ImageSource[],
  { maxPatches = 1, ...requested }: EmbedOptions = {}
): Promise<Embeddings> => {
  if (images.length === 0) throw new RangeError('images: the list is empty; give at least one image')
  if (!Number.isSafeInteger(maxPatches) || maxPatches < 1 || maxPatches > MAX_PATCHES)
    throw new RangeError(`maxPatches: expected a whole number from 1 to ${MAX_PATCHES}, got ${valueText(maxPatches)}`)
  const { image } = vision
  const compute = encoderOutput(vision, requested)
  const outputs: tf.Tensor[] = []
  try {
    for (const source of images) {
      const tiles = await readTiles(
        source,
        { ...image, maxPatches, minPatches: Math.min(image.minPatches, maxPatches) },
        requested
      )
      try {
        outputs.push(compute(tiles))
      } finally {
        tiles.dispose()
      }
    }
    return { values: tf.concat(outputs), tiles: outputs.map(({ shape }) => shape[0]!) }
  } finally {
    for (const tensor of outputs) tensor.dispose()
  }
}
