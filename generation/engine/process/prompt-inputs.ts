import { tf } from '../../../lib/tf.js'
import { imageFeaturesOf, routedTurn, visualIsBefore } from '../../chat/turn.js'
import { type GenerateOptions, kvCacheOf, maxNewTokensFor } from '../../decoding/generation-options.js'
import { type GenerateInputs, promptPositions } from '../../decoding/prefill.js'
import type { FeatureCache } from '../../feature-cache.js'
import { activeRouter, type RoutedInputs } from '../../flash/route-inputs.js'
import type { PromptUsage } from '../engine-types.js'
import type { PreparedPrompt, TileContent } from '../prepare/prepare-jobs.js'
import type { CachedPrefix, PromptContent } from './prefix-cache.js'
import type { RequestContext } from './request-context.js'

/** Inputs of the model for one prompt. `dispose` frees the tensors and releases the prefix. */
export interface PromptInputs {
  readonly content: PromptContent
  /** The options with the cached prefix and with `maxNewTokens` within the context. */
  readonly options: GenerateOptions
  readonly usage: PromptUsage
  /** Image features and ids; the features of images in the cached prefix are zeros. Undefined after an abort. */
  readonly encode: () => Promise<GenerateInputs | undefined>
  /** Tiles that were encoded for this prompt. */
  readonly encodedTiles: () => number
  readonly dispose: () => void
}

/** The options with `maxNewTokens` limited to the positions that the prompt leaves. */
const withinContext = (o: GenerateOptions, ids: readonly number[], content: PreparedPrompt['content']): GenerateOptions => {
  const wanted = maxNewTokensFor(o, ids.length)
  const { maxPositionEmbeddings = Number.POSITIVE_INFINITY } = o
  if (o.visualDelta !== undefined && content.length > 0) return { ...o, maxNewTokens: wanted } // image tokens advance by less than 1
  return { ...o, maxNewTokens: Math.max(1, Math.min(wanted, maxPositionEmbeddings - ids.length)) }
}

/** Counts the tiles that one request encodes; the cache is shared with the others. */
const countingFeatures = (features: FeatureCache) => {
  let encoded = 0
  const counted =
    <Args extends readonly unknown[], R>(f: (...args: Args) => R) =>
    (...args: Args): R => {
      const before = features.counts().encoded
      const result = f(...args)
      encoded += features.counts().encoded - before
      return result
    }
  const { features: whole, tileFeatures } = features
  return {
    features: { ...features, features: counted(whole), tileFeatures: counted(tileFeatures) },
    encoded: () => encoded
  }
}

/** The content of tiles after the router, which leaves a compressed tile a quarter of its tokens. */
const routedContent = (tiles: readonly TileContent[], { routing: [row] }: RoutedInputs): readonly TileContent[] =>
  tiles.map(({ key, tokens }, i) => (row!.compressed[i] ? { key: `${key} compressed`, tokens: tokens / 4 } : { key, tokens }))

/**
 * Inputs of a prompt, whose beginning may be in the prefix cache. The router of a Flash model sees all tiles before the prefix is
 * searched for, because whether a tile is compressed depends on every other tile. Undefined after an abort.
 */
export const promptInputs = async (
  { internvl, prefixes, features: shared }: RequestContext,
  { ids: wholeIds, visuals, tiles: pixels, content: wholeTiles }: PreparedPrompt,
  given: GenerateOptions
): Promise<PromptInputs | undefined> => {
  const { features, encoded } = countingFeatures(shared)
  const tilesAt = (visual: number) => pixels[visual]!
  const router = visuals.length > 0 ? activeRouter(internvl.model, given) : undefined
  const routed = router && (await routedTurn(router, wholeIds, visuals, tilesAt, features, given))
  if (router && !routed) return undefined
  const ids = routed?.inputs.promptIds?.[0] ?? wholeIds
  const tiles = routed ? routedContent(wholeTiles, routed) : wholeTiles
  let prefix: CachedPrefix | undefined
  let tensors: readonly tf.Tensor[] = []
  const dispose = (): void => {
    prefix?.release()
    routed?.dispose()
    tf.dispose([...tensors])
  }
  try {
    const options = withinContext(given, ids, tiles)
    const [positions] = promptPositions([ids], options, options.maxNewTokens!)
    const content = { ids, positions: positions!, tiles, imageTokenId: options.imageTokenId, kind: kvCacheOf(options) ?? '' }
    prefix = prefixes.take(content)
    const [reused, image] = [prefix?.length ?? 0, tiles.reduce((sum, { tokens }) => sum + tokens, 0)]
    const encode = async (): Promise<GenerateInputs | undefined> => {
      if (routed) return routed.inputs
      const isCached = visualIsBefore(reused, ids, visuals, internvl)
      const imageFeatures = await imageFeaturesOf(visuals, isCached, tilesAt, features, given)
      const inputIds = tf.tensor2d([...ids], [1, ids.length], 'int32')
      tensors = [inputIds, ...(imageFeatures ? [imageFeatures] : [])]
      return given.signal?.aborted ? undefined : { inputIds, promptIds: [ids], imageFeatures }
    }
    const counts = { total: ids.length, text: ids.length - image, image, tiles: tiles.length }
    return {
      content,
      options: { ...options, cache: prefix && [prefix.cache] },
      usage: { ...counts, reused, computed: ids.length - reused },
      encode,
      encodedTiles: encoded,
      dispose
    }
  } catch (error) {
    dispose()
    throw error
  }
}
