import { orThrow } from '../../../lib/error.js'
import type { ImageSource } from '../../../processors/image/image.js'
import { openImageTiles, type VisualInput } from '../../../processors/media/open-media.js'
import type { EncodedBatch, PrepareOptions, Processor } from '../../../processors/processor.js'
import { MAX_PATCHES, tokensPerTile } from '../../../processors/processor-options.js'
import { readTiles } from '../../chat/turn.js'
import { contentKeys, type Tiles } from '../../feature-cache.js'
import type { EngineRequest, MediaTiling } from '../engine-types.js'

/** One tile of a prompt: a key of its content, and the number of its tokens. */
export interface TileContent {
  readonly key: string
  readonly tokens: number
}

/** An encoded prompt with its decoded images and videos. */
export interface PreparedPrompt {
  readonly ids: readonly number[]
  readonly visuals: readonly Pick<VisualInput, 'tiles' | 'tileSize'>[]
  /** Tiles of each image, frames of each video. */
  readonly tiles: readonly Tiles[]
  /** Content of each tile and frame, in the order of their image tokens. */
  readonly content: readonly TileContent[]
}

/** The prompt of a request. */
export type RequestPrompt = Pick<EngineRequest, 'messages' | 'prompt' | 'promptIds'>

/** Work on requests before the model: reading, decoding and tiling of images, tokenizing. Errors: `InputError`, `RangeError`. */
export interface PrepareJobs {
  /** Encodes a prompt and decodes its images; undefined after an abort. */
  readonly prompt: (prompt: RequestPrompt, options: PrepareOptions, signal?: AbortSignal) => Promise<PreparedPrompt | undefined>
  /** Token ids of a prompt, whose images are opened, but not decoded. */
  readonly tokenize: (prompt: RequestPrompt, options: PrepareOptions) => Promise<readonly number[]>
  /** The tiles of a prompt's images and videos, none of which is decoded. */
  readonly tiling: (prompt: RequestPrompt, options: PrepareOptions) => Promise<readonly MediaTiling[]>
  /** At most `maxPatches` tiles of one image, and its thumbnail. */
  readonly image: (source: ImageSource, maxPatches: number, options: PrepareOptions) => Promise<Tiles>
}

const encodeIds = (ids: readonly number[], vocabSize: number): EncodedBatch => {
  if (ids.length === 0) throw new RangeError('promptIds: the list is empty; give at least one token id')
  const wrong = ids.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocabSize)
  if (wrong !== undefined) throw new RangeError(`promptIds: expected token ids from 0 to ${vocabSize - 1}, got ${wrong}`)
  return { ids: [ids], visuals: [], prompts: [''] }
}

/** The jobs in the thread that calls them. */
export const prepareJobs = (processor: Processor, vocabSize: number): PrepareJobs => {
  const encode = async ({ messages, prompt, promptIds }: RequestPrompt, options: PrepareOptions): Promise<EncodedBatch> => {
    const given = [messages, prompt, promptIds].filter((value) => value !== undefined).length
    if (given !== 1) throw new RangeError(`request: expected one of messages, prompt and promptIds, got ${given} of them`)
    if (promptIds) return encodeIds(promptIds, vocabSize)
    if (messages) return orThrow(processor.encodeBatch([messages], options))
    const { text, images, videos } = prompt!
    return orThrow(processor.encodeText({ text: [text], ...(images ? { images } : {}), ...(videos ? { videos } : {}) }, options))
  }
  return {
    prompt: async (prompt, options, signal) => {
      const { ids, visuals } = await encode(prompt, options)
      const tiles: Tiles[] = []
      for (const visual of visuals) {
        if (signal?.aborted) return undefined
        tiles.push(await readTiles(visual))
      }
      const content = visuals.flatMap(({ tileSize }, i) => {
        const tokens = tokensPerTile(processor.config, tileSize)
        return contentKeys(tiles[i]!).map((key) => ({ key, tokens }))
      })
      const sizes = visuals.map(({ tiles: count, tileSize }) => ({ tiles: count, tileSize }))
      return signal?.aborted ? undefined : { ids: ids[0]!, visuals: sizes, tiles, content }
    },
    tokenize: async (prompt, options) => (await encode(prompt, options)).ids[0]!,
    tiling: async (prompt, options) => {
      const { visuals } = await encode(prompt, options)
      return visuals.map(({ kind, tiles, tileSize, layout }) => ({
        ...{ kind, tiles, tileSize, tokensPerTile: tokensPerTile(processor.config, tileSize) },
        ...(layout ? { layout, hasThumbnail: tiles > layout.columns * layout.rows } : { hasThumbnail: false })
      }))
    },
    image: async (source, maxPatches, options) => {
      if (!Number.isSafeInteger(maxPatches) || maxPatches < 1 || maxPatches > MAX_PATCHES)
        throw new RangeError(`maxPatches: expected a whole number from 1 to ${MAX_PATCHES}, got ${maxPatches}`)
      const { image } = processor.config
      const config = { ...image, maxPatches, minPatches: Math.min(image.minPatches, maxPatches) }
      return readTiles(await orThrow(openImageTiles(source, config, options)))
    }
  }
}
