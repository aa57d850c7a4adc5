import { orThrow } from '../../lib/error.js'
import { withoutUndefined } from '../../lib/plain-object.js'
import { tf } from '../../lib/tf.js'
import type { FlashEncoder } from '../../models/internvl/flash/tile-features.js'
import type { VisualInput } from '../../processors/media/open-media.js'
import type { PrepareOptions } from '../../processors/processor.js'
import { tokensPerTile } from '../../processors/processor-options.js'
import type { Messages } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { type RowCache, reusableLength } from '../decoding/batch-cache.js'
import type { GenerateInputs } from '../decoding/generate.js'
import { type GenerateOptions, maxNewTokensFor } from '../decoding/generation-options.js'
import { checkOptions } from '../decoding/options/check-options.js'
import { isPaced, type Pacing, promptPositions, takePause, tilesPerChunk } from '../decoding/prefill.js'
import type { RowRouting } from '../decoding/prepare-generation.js'
import type { FeatureCache, Tiles } from '../feature-cache.js'
import { activeRouter, type RoutedInputs, routeTileFeatures } from '../flash/route-inputs.js'

/** The inputs of `generate` for one turn, and the number of tokens that the KV cache covers. The caller calls `dispose`. */
export interface PreparedTurn {
  readonly inputs: GenerateInputs
  /** The given cache, or its beginning where a router compresses other tiles now. */
  readonly cache: RowCache | undefined
  /** The tiles of the conversation that the router compressed, if there is a router. */
  readonly routing?: readonly RowRouting[]
  readonly dispose: () => void
  readonly promptTokens: number
  /** Number of leading prompt tokens that are in the cache. */
  readonly reusedTokens: number
}

/** Decodes an image or video to tiles. */
export const readTiles = async ({ tiles, tileSize: { width, height }, write }: VisualInput) => {
  const data = new Float32Array(tiles * 3 * width * height)
  await orThrow(write(data, 0))
  return { data, shape: [tiles, 3, height, width] as const }
}

/** Features of tiles by `compute`. With pacing, chunk by chunk with a pause in between; undefined after an abort. */
const inChunks = async <T extends tf.Tensor>(
  tiles: Tiles,
  compute: (tiles: Tiles) => T,
  pacing: Pacing
): Promise<T | undefined> => {
  const { signal } = pacing
  if (!isPaced(pacing)) return compute(tiles)
  const [T, C, H, W] = tiles.shape
  const [count, size] = [tilesPerChunk(H, W), C * H * W]
  const encoded: T[] = []
  try {
    for (let start = 0; start < T && !signal?.aborted; start += count) {
      const end = Math.min(T, start + count)
      encoded.push(compute({ data: tiles.data.subarray(start * size, end * size), shape: [end - start, C, H, W] }))
      await takePause(pacing)
    }
    return signal?.aborted ? undefined : tf.concat(encoded)
  } finally {
    tf.dispose(encoded)
  }
}

/**
 * Image features `[T, N, D]` of all visuals; zeros for those whose tokens are in the KV cache, which are not even read. Undefined
 * without new visuals, and after an abort.
 */
export const imageFeaturesOf = async (
  visuals: readonly Pick<VisualInput, 'tiles'>[],
  isCached: (visual: number) => boolean,
  tilesAt: (visual: number) => Tiles | Promise<Tiles>,
  features: FeatureCache,
  pacing: Pacing
): Promise<tf.Tensor3D | undefined> => {
  const encoded = new Map<number, tf.Tensor3D>()
  try {
    for (const i of visuals.keys()) {
      if (isCached(i)) continue
      const tiles = await inChunks(await tilesAt(i), features.features, pacing)
      if (!tiles) return undefined
      encoded.set(i, tiles)
    }
    const [first] = encoded.values()
    if (!first) return undefined
    const [, N, D] = first.shape
    return tf.tidy(() => tf.concat(visuals.map(({ tiles }, i) => encoded.get(i) ?? tf.zeros<tf.Rank.R3>([tiles, N, D]))))
  } finally {
    tf.dispose([...encoded.values()])
  }
}

/** Whether all tokens of the image or video with an index are among the first `length` of `ids`. */
export const visualIsBefore = (
  length: number,
  ids: readonly number[],
  visuals: readonly Pick<VisualInput, 'tiles' | 'tileSize'>[],
  { processor, generation }: InternVLCheckpoint
): ((visual: number) => boolean) => {
  const imageTokenIndices = ids.flatMap((id, i) => (id === generation.imageTokenId ? [i] : []))
  const lengths = visuals.map(({ tiles, tileSize }) => tiles * tokensPerTile(processor.config, tileSize))
  const ends = lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b))
  return (visual) => imageTokenIndices[ends[visual]! - 1]! < length
}

/** The inputs after the router, of all images: whether a tile is compressed depends on every other tile. Undefined after an abort. */
export const routedTurn = async (
  router: FlashEncoder,
  ids: readonly number[],
  visuals: readonly Pick<VisualInput, 'tiles'>[],
  tilesAt: (visual: number) => Tiles | Promise<Tiles>,
  features: FeatureCache,
  options: GenerateOptions & Pacing
): Promise<RoutedInputs | undefined> => {
  const encoded: tf.Tensor2D[] = []
  try {
    for (const i of visuals.keys()) {
      const tiles = await inChunks(await tilesAt(i), features.tileFeatures, options)
      if (!tiles) return undefined
      encoded.push(tiles)
    }
    const all = tf.concat(encoded)
    encoded.push(all)
    return routeTileFeatures(router, all, [ids], options)
  } finally {
    tf.dispose(encoded)
  }
}

/** A turn whose prompt the router has shortened. */
const preparedRouted = ({ inputs, options, routing, dispose }: RoutedInputs): PreparedTurn => {
  const ids = inputs.promptIds![0]!
  const [positions] = promptPositions([ids], options, maxNewTokensFor(options, ids.length))
  const cache = options.cache?.[0]
  return { inputs, cache, routing, dispose, promptTokens: ids.length, reusedTokens: reusableLength(ids, positions!, cache) }
}

/**
 * Prepares a conversation whose beginning may be in `cache`. Only images after the common prefix are opened, and only tiles
 * that `features` does not have are encoded.
 */
export const prepareTurn = async (
  internvl: InternVLCheckpoint,
  messages: Messages,
  cache: RowCache | undefined,
  features: FeatureCache,
  options: PrepareOptions & GenerateOptions = {}
): Promise<PreparedTurn> => {
  const { processor, generation } = internvl
  const { ids: rows, visuals } = await orThrow(processor.encodeBatch([messages], options))
  const ids = rows[0]!
  const generateOptions = { ...generation, ...withoutUndefined(options) }
  checkOptions({ decode: () => '', ...generateOptions }) // before the positions are computed; `generate` gets the real `decode`
  const router = visuals.length > 0 ? activeRouter(internvl.model, generateOptions) : undefined
  if (router) {
    const routeOptions = { ...generateOptions, cache: [cache] }
    const routed = await routedTurn(router, ids, visuals, (i) => readTiles(visuals[i]!), features, routeOptions)
    if (routed) return preparedRouted(routed)
  }
  const [positions] = promptPositions([ids], generateOptions, maxNewTokensFor(generateOptions, ids.length))
  const reusedTokens = reusableLength(ids, positions!, cache)
  const isCached = visualIsBefore(reusedTokens, ids, visuals, internvl)
  const imageFeatures = await imageFeaturesOf(visuals, isCached, (i) => readTiles(visuals[i]!), features, options)
  const inputIds = tf.tensor2d([...ids], [1, ids.length], 'int32')
  return {
    inputs: { inputIds, promptIds: rows, imageFeatures },
    cache,
    dispose: () => tf.dispose([inputIds, ...(imageFeatures ? [imageFeatures] : [])]),
    promptTokens: ids.length,
    reusedTokens
  }
}
