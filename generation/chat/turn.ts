import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { orThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import type { VisualInput } from '../../processors/media/open-media.js'
import type { PrepareOptions } from '../../processors/processor.js'
import { tokensPerTile } from '../../processors/processor-options.js'
import type { Messages } from '../../processors/text/messages.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { type RowCache, reusableLength } from '../decoding/batch-cache.js'
import type { GenerateInputs } from '../decoding/generate.js'
import { type GenerateOptions, maxNewTokensFor } from '../decoding/generation-options.js'
import { promptPositions, tilesPerChunk } from '../decoding/prefill.js'
import type { FeatureCache, Tiles } from '../feature-cache.js'

/** The inputs of `generate` for one turn, and the number of tokens that the KV cache covers. The caller owns the tensors. */
export interface PreparedTurn {
  readonly inputs: GenerateInputs
  readonly promptTokens: number
  /** Number of leading prompt tokens that are in the cache. */
  readonly reusedTokens: number
}

const readTiles = async ({ tiles, tileSize: { width, height }, write }: VisualInput) => {
  const data = new Float32Array(tiles * 3 * width * height)
  await orThrow(write(data, 0))
  return { data, shape: [tiles, 3, height, width] as const }
}

/** Image features `[T, N, D]` of tiles. With a signal, chunk by chunk while the event loop runs; undefined after an abort. */
const cachedFeatures = async (
  tiles: Tiles,
  features: FeatureCache,
  signal: AbortSignal | undefined
): Promise<tf.Tensor3D | undefined> => {
  if (!signal) return features.features(tiles)
  const [T, C, H, W] = tiles.shape
  const [count, size] = [tilesPerChunk(H, W), C * H * W]
  const encoded: tf.Tensor3D[] = []
  try {
    for (let start = 0; start < T && !signal.aborted; start += count) {
      const end = Math.min(T, start + count)
      encoded.push(features.features({ data: tiles.data.subarray(start * size, end * size), shape: [end - start, C, H, W] }))
      await yieldToEventLoop()
    }
    return signal.aborted ? undefined : tf.concat(encoded)
  } finally {
    tf.dispose(encoded)
  }
}

/**
 * Image features `[T, N, D]` of all visuals; zeros for those whose tokens are in the KV cache, which are not even read. Undefined
 * without new visuals, and after an abort.
 */
const imageFeaturesOf = async (
  visuals: readonly VisualInput[],
  isCached: (visual: number) => boolean,
  features: FeatureCache,
  signal: AbortSignal | undefined
): Promise<tf.Tensor3D | undefined> => {
  const encoded = new Map<number, tf.Tensor3D>()
  try {
    for (const [i, visual] of visuals.entries()) {
      if (isCached(i)) continue
      const tiles = await cachedFeatures(await readTiles(visual), features, signal)
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

/**
 * Prepares a conversation whose beginning may be in `cache`. Only images after the common prefix are opened, and only tiles
 * that `features` does not have are encoded.
 */
export const prepareTurn = async (
  { processor, generation }: InternVLCheckpoint,
  messages: Messages,
  cache: RowCache | undefined,
  features: FeatureCache,
  options: PrepareOptions & GenerateOptions = {}
): Promise<PreparedTurn> => {
  const { ids: rows, visuals } = await orThrow(processor.encodeBatch([messages], options))
  const ids = rows[0]!
  const generateOptions = { ...generation, ...options }
  const [positions] = promptPositions([ids], generateOptions, maxNewTokensFor(generateOptions, ids.length))
  const reusedTokens = reusableLength(ids, positions!, cache)
  const imageTokenIndices = ids.flatMap((id, i) => (id === generation.imageTokenId ? [i] : []))
  const lengths = visuals.map(({ tiles, tileSize }) => tiles * tokensPerTile(processor.config, tileSize))
  const ends = lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b))
  const isCached = (visual: number): boolean => imageTokenIndices[ends[visual]! - 1]! < reusedTokens
  const imageFeatures = await imageFeaturesOf(visuals, isCached, features, options.signal)
  return {
    inputs: { inputIds: tf.tensor2d([...ids], [1, ids.length], 'int32'), promptIds: rows, imageFeatures },
    promptTokens: ids.length,
    reusedTokens
  }
}
