import * as E from 'fp-ts/lib/Either.js'
import { selectEngine } from '../lib/engines/index.js'
import { InternVLError, type Issue, type Issues, orThrow } from '../lib/error.js'
import { tf } from '../lib/tf.js'
import { type LoadedVision, loadVision } from '../models/internvl/vision-encoder.js'
import type { ImageConfig } from '../processors/config/processor-config.js'
import type { ImageSource } from '../processors/image/image.js'
import { openImage } from '../processors/media/open-media.js'
import { loadProcessor } from '../processors/processor.js'
import { demoModel, type LoadOptions } from './checkpoint/load.js'
import { modelFolder } from './hub/index.js'

/** The eye of a checkpoint: pictures to tiles, and tiles to vectors. `dispose` frees its parameters. */
export interface VisionCheckpoint extends LoadedVision {
  readonly dir: string
  readonly image: ImageConfig
}

/**
 * Opens the vision tower and the projector of a checkpoint, a folder or `org/name` of the hub; by default the embedded demo
 * model. The decoder's weights are not read. Throws an `InternVLError`.
 */
export const loadEyes = async (
  name: string = demoModel,
  options: Omit<LoadOptions, 'adapter'> = {}
): Promise<VisionCheckpoint> => {
  const dir = await orThrow(modelFolder(name, options))
  await selectEngine(options)
  const [processor, vision] = [await loadProcessor(dir)(), await loadVision(dir, options)()]
  if (E.isRight(processor) && E.isRight(vision)) return { ...vision.right, dir, image: processor.right.config.image }
  if (E.isRight(vision)) vision.right.dispose()
  const issues = [processor, vision].flatMap((x): readonly Issue[] => (E.isLeft(x) ? x.left : []))
  throw new InternVLError(issues.filter((f, i) => issues.findIndex((g) => g.message === f.message) === i) as unknown as Issues)
}

/** What pictures become: a vector each, the tokens that a decoder would read, or a layer of the tower. */
export interface Embedded {
  /** `[T, D]` pooled, or as `EmbedOptions` say; T tiles of all pictures in order. The caller disposes it. */
  readonly values: tf.Tensor
  /** Tiles of each picture. */
  readonly tiles: readonly number[]
}

export interface EmbedOptions {
  /** The projector's output, all image tokens of a tile, instead of one vector. */
  readonly projected?: boolean
  /** The tower's states after so many layers (0: its embeddings), `[T, L, D]`, instead of one vector. */
  readonly hiddenStates?: number | undefined
  /** The attention weights of a layer, 0 the first, `[T, H, L, L]`, instead of one vector. */
  readonly attentions?: number | undefined
  /** Tiles of a picture at most: one unless given, the whole picture; with more, each tile has its own row. */
  readonly maxPatches?: number
}

/** The tiles of one picture, `[T, 3, height, width]`. */
const tilesOf = async (source: ImageSource, config: ImageConfig): Promise<tf.Tensor4D> => {
  const visual = await orThrow(openImage(source, config, {}))
  const { width, height } = visual.tileSize
  const pixels = new Float32Array(visual.tiles * 3 * width * height)
  await orThrow(visual.write(pixels, 0))
  return tf.tensor4d(pixels, [visual.tiles, 3, height, width])
}

/** How tiles become what the options ask for. Throws a `RangeError` for two things at once, or a layer that the tower lacks. */
const computeOf = ({ encoder, config }: LoadedVision, { projected, hiddenStates, attentions }: EmbedOptions) => {
  const asked = Object.entries({ projected: projected || undefined, hiddenStates, attentions })
  const [first, second] = asked.flatMap(([name, value]) => (value === undefined ? [] : [name]))
  if (second) throw new RangeError(`${first} and ${second} exclude each other: ask for one of them`)
  const { numHiddenLayers: layers } = config.visionConfig
  const layerOf = (name: string, value: number, last: number): number => {
    if (Number.isInteger(value) && value >= 0 && value <= last) return value
    throw new RangeError(`${name}: expected a whole number from 0 to ${last}, got ${value}`)
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
 * Embeddings of pictures by the vision tower: the mean over its patches, or its class token, as the configuration says
 * (`poolVision`). Throws an `InternVLError` when a picture cannot be read, a `RangeError` for options.
 *
 * `const { values } = await embed(await loadEyes(), ['a.png', 'b.jpg'])`
 */
export const embed = async (
  eyes: VisionCheckpoint,
  pictures: readonly ImageSource[],
  { maxPatches = 1, ...asked }: EmbedOptions = {}
): Promise<Embedded> => {
  if (pictures.length === 0) throw new RangeError('pictures: give at least one')
  const { image } = eyes
  const compute = computeOf(eyes, asked)
  const made: tf.Tensor[] = []
  try {
    for (const picture of pictures) {
      const tiles = await tilesOf(picture, { ...image, maxPatches, minPatches: Math.min(image.minPatches, maxPatches) })
      made.push(compute(tiles))
      tiles.dispose()
    }
    return { values: tf.concat(made), tiles: made.map(({ shape }) => shape[0]!) }
  } finally {
    for (const tensor of made) tensor.dispose()
  }
}
