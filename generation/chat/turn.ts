import { getOrThrow, orThrow } from '../../lib/error.js'
import { tf } from '../../lib/tf.js'
import { assembleMessages, type Parts } from '../../processors/encode.js'
import type { Visual } from '../../processors/media/open-media.js'
import type { PrepareOptions, Processor } from '../../processors/processor.js'
import { tokensPerTile } from '../../processors/processor-options.js'
import type { Messages } from '../../processors/text/messages.js'
import { controlTokens, cutter, visualTokens } from '../../processors/text/placeholders.js'
import type { InternVLCheckpoint } from '../checkpoint/load.js'
import { type RowCache, reusable } from '../decoding/batch-cache.js'
import type { GenerateInputs } from '../decoding/generate.js'
import { type GenerateOptions, newTokensAllowed } from '../decoding/generation-options.js'
import { promptPositions } from '../decoding/positions.js'
import type { FeatureCache } from '../feature-cache.js'

/** A conversation as the model takes it, with what need not be computed. The tensors are the caller's. */
export interface ReadTurn {
  readonly inputs: GenerateInputs
  readonly promptTokens: number
  /** Of those, the first so many are in the cache. */
  readonly reusedTokens: number
}

const partsOf = ({ config, tokenizer, chatTemplate }: Processor, dir: string): Parts => {
  const visual = getOrThrow(visualTokens(tokenizer, dir))
  const control = controlTokens(tokenizer, visual, chatTemplate)
  return { config, tokenizer, chatTemplate, visual, control, cut: cutter(tokenizer, visual) }
}

const tilesOf = async ({ tiles, tileSize: { width, height }, write }: Visual) => {
  const data = new Float32Array(tiles * 3 * width * height)
  await orThrow(write(data, 0))
  return { data, shape: [tiles, 3, height, width] as const }
}

/** Features `[T, N, D]` of everything shown; zeros for what the cache has seen, whose pixels are not even read. */
const featuresFor = async (
  visuals: readonly Visual[],
  isKnown: (visual: number) => boolean,
  features: FeatureCache
): Promise<tf.Tensor3D | undefined> => {
  const fresh = new Map<number, tf.Tensor3D>()
  try {
    for (const [i, visual] of visuals.entries()) if (!isKnown(i)) fresh.set(i, features.features(await tilesOf(visual)))
    const [like] = fresh.values()
    if (!like) return undefined
    const [, N, D] = like.shape
    return tf.tidy(() => tf.concat(visuals.map(({ tiles }, i) => fresh.get(i) ?? tf.zeros<tf.Rank.R3>([tiles, N, D]))))
  } finally {
    tf.dispose([...fresh.values()])
  }
}

/**
 * Reads a conversation of which `known` may hold the beginning. Only pictures after the common prefix are opened, and of these
 * only tiles that `features` does not have are encoded.
 */
export const readTurn = async (
  { processor, generation, dir }: InternVLCheckpoint,
  messages: Messages,
  known: RowCache | undefined,
  features: FeatureCache,
  options: PrepareOptions & GenerateOptions = {}
): Promise<ReadTurn> => {
  const parts = partsOf(processor, dir)
  const { ids: rows, visuals } = await orThrow(() => assembleMessages(parts, [messages], options))
  const ids = rows[0]!
  const how = { ...generation, ...options }
  const [positions] = promptPositions([ids], how, newTokensAllowed(how, ids.length))
  const reusedTokens = reusable(ids, positions!, known)
  const places = ids.flatMap((id, i) => (id === generation.imageTokenId ? [i] : []))
  const lengths = visuals.map(({ tiles, tileSize }) => tiles * tokensPerTile(processor.config, tileSize))
  const ends = lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b))
  const isKnown = (visual: number): boolean => places[ends[visual]! - 1]! < reusedTokens
  const imageFeatures = await featuresFor(visuals, isKnown, features)
  return {
    inputs: { inputIds: tf.tensor2d([...ids], [1, ids.length], 'int32'), imageFeatures },
    promptTokens: ids.length,
    reusedTokens
  }
}
