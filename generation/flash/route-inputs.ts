import { tf } from '../../lib/tf.js'
import {
  compressedTiles,
  type FlashEncoder,
  keptIds,
  scoresOf,
  selectFeatures,
  tokensOfRow
} from '../../models/internvl/flash/tile-features.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import type { RowCache } from '../decoding/batch-cache.js'
import type { GenerateOptions } from '../decoding/generation-options.js'
import { encodeTiles, type GenerateInputs, promptsOf } from '../decoding/prefill.js'
import type { RowRouting } from '../decoding/prepare-generation.js'

/** Inputs after the router, with the options that belong to them. `dispose` frees the tensors that routing made. */
export interface RoutedInputs {
  readonly inputs: GenerateInputs
  readonly options: GenerateOptions
  /** The tiles of each row that the router compressed. */
  readonly routing: readonly RowRouting[]
  readonly dispose: () => void
}

/** The router of a model, if the options or else the model's configuration turn the router on. Throws a `RangeError` without one. */
export const activeRouter = ({ flash }: InternVL, options: GenerateOptions): FlashEncoder | undefined => {
  if (options.flash && !flash)
    throw new RangeError('flash: expected a model with a router (InternVL3.5-Flash), this one has none')
  return (options.flash ?? flash?.mode) ? flash : undefined
}

/** Whether the router changes these inputs. */
export const isRouted = (model: InternVL, inputs: GenerateInputs, options: GenerateOptions): boolean =>
  activeRouter(model, options) !== undefined && inputs.pixelValues !== undefined && inputs.imageFeatures === undefined

/** The cache of a row up to the first image token of the first tile that was compressed and is not now, or the reverse. */
const cacheBeforeChange = (
  cache: RowCache | undefined,
  ids: readonly number[],
  imageTokenId: number,
  N: number,
  compressed: readonly boolean[]
): RowCache | undefined => {
  const tile = compressed.findIndex(
    (isCompressed, i) => cache?.compressed?.[i] !== undefined && cache.compressed[i] !== isCompressed
  )
  if (!cache || tile < 0) return cache
  const before = compressed.slice(0, tile).reduce((n, isCompressed) => n + (isCompressed ? N / 4 : N), 0)
  let index = 0
  const end = ids.findIndex((id) => id === imageTokenId && index++ === before)
  return { ...cache, ids: cache.ids.slice(0, end) }
}

/** Rows padded on the left to one length, and their mask. */
const padded = (rows: readonly (readonly number[])[], padId: number) => {
  const length = Math.max(...rows.map((ids) => ids.length))
  const pad = (ids: readonly number[], filled: number, values: readonly number[]) => [
    ...Array<number>(length - ids.length).fill(filled),
    ...values
  ]
  return {
    inputIds: tf.tensor2d(rows.map((ids) => pad(ids, padId, ids)), [rows.length, length], 'int32'), // biome-ignore format: one line
    attentionMask: tf.tensor2d(rows.map((ids) => pad(ids, 0, ids.map(() => 1))), [rows.length, length], 'int32') // biome-ignore format: one line
  }
}

/**
 * Prompts and image features after the router, from the tile features of all rows. Each row is a request of its own: whether
 * a tile is compressed depends on the tiles of its row only. Throws a `ShapeError` where image tokens and tiles differ in number.
 */
export const routeTileFeatures = (
  router: FlashEncoder,
  tiles: tf.Tensor2D,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions
): RoutedInputs => {
  const { imageTokenId, flashRelativeThreshold, flashAbsoluteThreshold } = options
  if (imageTokenId === undefined) throw new RangeError('imageTokenId: expected a token id for a model with a router')
  const thresholds = {
    relativeThreshold: flashRelativeThreshold ?? router.relativeThreshold,
    absoluteThreshold: flashAbsoluteThreshold ?? router.absoluteThreshold
  }
  const [N, scores] = [tokensOfRow(tiles, router.hiddenSize), scoresOf(tiles)]
  let next = 0
  const rows = prompts.map((ids) => {
    const count = Math.ceil(ids.filter((id) => id === imageTokenId).length / N)
    const rowScores = scores.slice(next, next + count)
    next += count
    const compressed = compressedTiles(rowScores, thresholds)
    return { scores: rowScores, compressed, ids: keptIds(ids, imageTokenId, N, compressed) }
  })
  const promptIds = rows.map(({ ids }) => ids)
  const imageFeatures = selectFeatures(tiles, router.hiddenSize, rows.flatMap(({ compressed }) => compressed)) // biome-ignore format: one line
  const inputs = { ...padded(promptIds, options.padTokenId ?? 0), promptIds, imageFeatures }
  const cache = options.cache?.map((row, i) => cacheBeforeChange(row, promptIds[i]!, imageTokenId, N, rows[i]!.compressed))
  return {
    inputs,
    options: cache ? { ...options, cache } : options,
    routing: rows.map(({ ids, ...row }) => ({ ...row, promptTokens: ids.length })),
    dispose: () => tf.dispose([inputs.inputIds, inputs.attentionMask, imageFeatures])
  }
}

/** Inputs after the router; undefined after an abort. */
export const routeInputs = async (
  model: InternVL,
  inputs: GenerateInputs,
  options: GenerateOptions
): Promise<RoutedInputs | undefined> => {
  const router = activeRouter(model, options)!
  const prompts = promptsOf(inputs)
  const tiles = await encodeTiles(router, inputs.pixelValues!, options)
  if (!tiles) return undefined
  try {
    return routeTileFeatures(router, tiles, prompts, options)
  } finally {
    tiles.dispose()
  }
}

/** Caches of finished rows, with the tiles of their prompts that the router compressed. */
export const withCompressedTiles = (caches: readonly RowCache[], routing: readonly RowRouting[]): readonly RowCache[] =>
  caches.map((cache, i) => ({ ...cache, compressed: routing[Math.floor((i * routing.length) / caches.length)]!.compressed }))
