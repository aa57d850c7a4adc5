import type { RowCache } from '../../decoding/batch-cache.js'
import { disposeCache, reusableLength, tensorsOf } from '../../decoding/batch-cache.js'
import type { PrefixCacheSize } from '../engine-types.js'
import type { TileContent } from '../prepare/prepare-jobs.js'

/** A prompt as far as keys and values depend on it. Image tokens of all images have one id, so the tiles tell them apart. */
export interface PromptContent {
  readonly ids: readonly number[]
  readonly positions: readonly number[]
  /** In the order of their image tokens. */
  readonly tiles: readonly TileContent[]
  readonly imageTokenId: number | undefined
  /** Prompts of other kinds share nothing: the type of the cache. */
  readonly kind: string
}

interface Entry {
  readonly cache: RowCache
  readonly tiles: readonly TileContent[]
  readonly kind: string
  readonly bytes: number
  users: number
  isDropped: boolean
}

/** The cached beginning of a prompt. The cache stays valid until `release`. */
export interface CachedPrefix {
  /** Cut to the tokens that the prompt shares. */
  readonly cache: RowCache
  readonly length: number
  readonly release: () => void
}

/** Keys and values of earlier prompts and answers, bounded in bytes; the least recently used are disposed first. */
export interface PrefixCache {
  /** The longest cached beginning of a prompt; the last token of the prompt is never part of it. Undefined if none is cached. */
  readonly take: (prompt: PromptContent) => CachedPrefix | undefined
  /** Takes over the cache of a prompt and its answer. */
  readonly put: (prompt: Pick<PromptContent, 'tiles' | 'kind'>, cache: RowCache) => void
  readonly size: () => PrefixCacheSize
  readonly clear: () => void
}

/** Index in `ids` of the first token of tile `tile`. */
const tileStart = ({ ids, tiles, imageTokenId }: PromptContent, tile: number): number => {
  const before = tiles.slice(0, tile).reduce((sum, { tokens }) => sum + tokens, 0)
  let count = 0
  return ids.findIndex((id) => id === imageTokenId && count++ === before)
}

/** Number of tokens of a prompt that an entry has: equal ids, positions and tiles. */
const sharedLength = (prompt: PromptContent, { cache, tiles, kind }: Entry): number => {
  if (prompt.kind !== kind) return 0
  const length = reusableLength(prompt.ids, prompt.positions, cache)
  const other = prompt.tiles.findIndex(({ key, tokens }, i) => key !== tiles[i]?.key || tokens !== tiles[i]?.tokens)
  return other < 0 ? length : Math.min(length, tileStart(prompt, other))
}

const bytesOf = ({ kv }: RowCache): number => tensorsOf(kv).reduce((sum, { size }) => sum + 4 * size, 0) // float32 or packed int32

/** A cache of at most `maxBytes`. */
export const prefixCache = (maxBytes: number): PrefixCache => {
  const entries = new Set<Entry>() // in order of use, the least recent first
  let bytes = 0
  const disposeUnused = (entry: Entry): void => {
    if (entry.isDropped && entry.users === 0) disposeCache(entry.cache.kv)
  }
  const drop = (entry: Entry): void => {
    entries.delete(entry)
    bytes -= entry.bytes
    entry.isDropped = true
    disposeUnused(entry)
  }
  /** Whether every later prompt that shares tokens with `entry` shares as many with the new cache. */
  const isCovered = (entry: Entry, cache: RowCache, { tiles, kind }: Pick<PromptContent, 'tiles' | 'kind'>): boolean =>
    entry.kind === kind &&
    entry.cache.ids.length <= cache.ids.length &&
    entry.cache.ids.every((id, i) => id === cache.ids[i] && entry.cache.positions[i] === cache.positions[i]) &&
    entry.tiles.every(({ key, tokens }, i) => key === tiles[i]?.key && tokens === tiles[i]?.tokens)
  return {
    take: (prompt) => {
      let best: { readonly entry: Entry; readonly length: number } | undefined
      for (const entry of entries) {
        const length = sharedLength(prompt, entry)
        if (length > (best?.length ?? 0)) best = { entry, length }
      }
      if (!best) return undefined
      const { entry, length } = best
      entries.delete(entry)
      entries.add(entry)
      entry.users++
      const release = (): void => {
        entry.users--
        disposeUnused(entry)
      }
      return { cache: { ...entry.cache, ids: entry.cache.ids.slice(0, length) }, length, release }
    },
    put: (prompt, cache) => {
      for (const entry of [...entries]) if (isCovered(entry, cache, prompt)) drop(entry)
      const { tiles, kind } = prompt
      const entry: Entry = { cache, tiles, kind, bytes: bytesOf(cache), users: 0, isDropped: false }
      entries.add(entry)
      bytes += entry.bytes
      for (const oldest of [...entries]) {
        if (bytes <= maxBytes) break
        drop(oldest)
      }
    },
    size: () => ({
      entries: entries.size,
      bytes,
      tensors: [...entries].reduce((sum, { cache }) => sum + tensorsOf(cache.kv).length, 0)
    }),
    clear: () => {
      for (const entry of [...entries]) drop(entry)
    }
  }
}
