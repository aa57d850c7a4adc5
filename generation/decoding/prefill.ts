import { setImmediate as yieldToEventLoop } from 'node:timers/promises'
import { InputError, issue } from '../../lib/error.js'
import type { Positions } from '../../lib/nn/rope.js'
import { expectShape, ShapeError } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import type { KVCache } from '../../models/decoders/decoder.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { positionAt, visualDeltas, visualPositions } from '../../models/internvl/v2pe.js'
import { withKVCacheType } from '../../models/quantization/kv-cache-type.js'
import {
  concatRows,
  disposeCache,
  disposeForward,
  disposingAfter,
  type ForwardResult,
  forward,
  reusableLength
} from './batch-cache.js'
import { type GenerateOptions, kvCacheOf } from './generation-options.js'
import { checkLogits } from './sampling.js'

/** A batch of prompts, padded on the left. The caller owns the tensors. */
export interface GenerateInputs {
  /** `[B, L]` */
  readonly inputIds: tf.Tensor2D
  /** Token ids of each prompt without padding, so that `inputIds` need not be read back. */
  readonly promptIds?: readonly (readonly number[])[] | undefined
  /** `[B, L]`, 0 is padding; no padding by default. */
  readonly attentionMask?: tf.Tensor2D | undefined
  /** Tiles `[T, C, H, W]` of all images, in the order of their image tokens. */
  readonly pixelValues?: tf.Tensor4D | undefined
  /** Image features `[T, N, D]`, instead of `pixelValues`. */
  readonly imageFeatures?: tf.Tensor3D | undefined
}

/** The token ids of each prompt without padding. Throws a `RangeError` if padding is not on the left. */
export const promptsOf = ({ inputIds, attentionMask, promptIds }: GenerateInputs): readonly (readonly number[])[] => {
  const [B, L] = inputIds.shape
  if (attentionMask) expectShape('attentionMask', attentionMask, [B, L])
  const mask = attentionMask?.dataSync()
  return Array.from({ length: B }, (_, row) => {
    const isToken = Array.from({ length: L }, (_, i) => (mask?.[row * L + i] ?? 1) !== 0)
    const first = isToken.indexOf(true)
    if (first < 0) throw new RangeError(`attentionMask: row ${row} has only padding`)
    if (isToken.includes(false, first))
      throw new RangeError(`attentionMask: row ${row} has padding after a token; pad on the left`)
    const known = promptIds?.[row]
    return known?.length === L - first ? known : Array.from(inputIds.dataSync().subarray(row * L + first, (row + 1) * L))
  })
}

/**
 * Position ids of the prompts' tokens. With `visualDelta: 'auto'` each row gets the largest increment that leaves room for
 * `maxNewTokens`, independent of the other rows. Throws an `InputError` for a prompt longer than `maxPositionEmbeddings`.
 */
export const promptPositions = (
  prompts: readonly (readonly number[])[],
  { visualDelta = 1, imageTokenId, maxPositionEmbeddings = Number.POSITIVE_INFINITY }: GenerateOptions,
  maxNewTokens: number
): Positions =>
  prompts.map((ids) => {
    const positionsWith = (delta: number) =>
      imageTokenId === undefined ? [...ids.keys()] : visualPositions(ids, imageTokenId, delta)
    const lengthWith = (delta: number) => positionAt(positionsWith(delta), ids.length)
    const fits = (delta: number) => lengthWith(delta) + maxNewTokens <= maxPositionEmbeddings
    const positions = positionsWith(visualDelta === 'auto' ? (visualDeltas.find(fits) ?? visualDeltas.at(-1)!) : visualDelta)
    const length = positionAt(positions, ids.length)
    if (length <= maxPositionEmbeddings) return positions
    const size = length === ids.length ? `${length} tokens` : `${ids.length} tokens at ${length} positions`
    const message = `inputIds: the prompt has ${size}, the model has ${maxPositionEmbeddings} positions; shorten the prompt`
    throw new InputError([issue('PromptTooLong', message, { expected: maxPositionEmbeddings, actual: length })])
  })

/** Number of tiles that are encoded between two checks of the abort signal: one of 448 x 448 pixels, or more smaller ones. */
export const tilesPerChunk = (height: number, width: number): number => Math.max(1, Math.floor(448 ** 2 / (height * width)))

/** Prompt tokens of one forward between two checks of the abort signal. */
const TOKENS_PER_CHUNK = 512

/** Pauses of a prompt that is computed in chunks; a prompt without a signal and without `pause` is computed in one piece. */
export type Pacing = Pick<GenerateOptions, 'signal' | 'pause' | 'prefillChunkSize'>

/** Whether there is a reason to stop between two chunks. */
export const isPaced = ({ signal, pause }: Pacing): boolean => signal !== undefined || pause !== undefined

/** Lets other work run: `pause`, by default one turn of the event loop, which TensorFlow blocks otherwise. */
export const takePause = async ({ pause = yieldToEventLoop }: Pacing): Promise<void> => void (await pause())

/**
 * Features of tiles by `encode`, such as `model.imageFeatures`. With pacing, tiles are encoded chunk by chunk with a pause in between;
 * undefined after an abort.
 */
export const encodeTiles = async <R extends tf.Tensor>(
  encode: (pixelValues: tf.Tensor4D) => R,
  pixelValues: tf.Tensor4D,
  pacing: Pacing
): Promise<R | undefined> => {
  const { signal } = pacing
  if (!isPaced(pacing)) return encode(pixelValues)
  const [T, C, H, W] = pixelValues.shape
  const size = tilesPerChunk(H, W)
  const chunks: R[] = []
  try {
    for (let start = 0; start < T && !signal?.aborted; start += size) {
      const tiles = () => pixelValues.slice([start, 0, 0, 0], [Math.min(size, T - start), C, H, W])
      chunks.push(tf.tidy(() => encode(tiles())))
      await takePause(pacing)
    }
    return signal?.aborted ? undefined : tf.concat(chunks)
  } finally {
    tf.dispose(chunks)
  }
}

/**
 * Image features `[1, n, D]` of the image tokens with the indices `needed` among `total`; encodes only the tiles they belong to.
 * Undefined after an abort.
 */
const selectImageFeatures = async (
  model: InternVL,
  { pixelValues, imageFeatures }: GenerateInputs,
  needed: readonly number[],
  total: number,
  pacing: Pacing
): Promise<tf.Tensor3D | undefined> => {
  const T = (imageFeatures ?? pixelValues)?.shape[0] ?? 0
  if (T === 0 || total % T !== 0) throw new ShapeError(`merge: ${total} image tokens in inputIds, ${T} tiles`)
  const N = total / T
  const tiles = [...new Set(needed.map((token) => Math.floor(token / N)))]
  const gathered = tf.tidy(() => (imageFeatures ?? pixelValues!).gather(tf.tensor1d(tiles, 'int32')))
  const features = imageFeatures
    ? (gathered as tf.Tensor3D)
    : await encodeTiles(model.imageFeatures, gathered as tf.Tensor4D, pacing).finally(() => gathered.dispose())
  if (!features) return undefined
  return disposingAfter([features], () => {
    const [, perTile, D] = features.shape
    if (perTile !== N) throw new ShapeError(`merge: ${total} image tokens in inputIds, ${T * perTile} image features`)
    const rows = needed.map((token) => tiles.indexOf(Math.floor(token / N)) * N + (token % N))
    return tf.tidy(() => features.reshape([-1, D]).gather(tf.tensor1d(rows, 'int32')).reshape<tf.Tensor3D>([1, needed.length, D]))
  })
}

/** Embeddings `[B, L, D]` of whole prompts; undefined after an abort. */
const embedPrompts = async (model: InternVL, inputs: GenerateInputs, pacing: Pacing): Promise<tf.Tensor3D | undefined> => {
  if (!isPaced(pacing) || !inputs.pixelValues || inputs.imageFeatures) return model.embed(inputs)
  const imageFeatures = await encodeTiles(model.imageFeatures, inputs.pixelValues, pacing)
  return imageFeatures && disposingAfter([imageFeatures], () => model.embed({ inputIds: inputs.inputIds, imageFeatures }))
}

/** Embeddings `[B, M, D]` of each prompt after its first `reused[row]` tokens, padded on the left; undefined after an abort. */
const embedSuffix = async (
  model: InternVL,
  inputs: GenerateInputs,
  prompts: readonly (readonly number[])[],
  reused: readonly number[],
  { imageTokenId, ...pacing }: Pacing & Pick<GenerateOptions, 'imageTokenId'>
): Promise<tf.Tensor3D | undefined> => {
  const imageTokens = prompts.flatMap((ids, row) => ids.flatMap((id, i) => (id === imageTokenId ? [{ row, i }] : [])))
  const needed = imageTokens.flatMap(({ row, i }, n) => (i >= reused[row]! ? [n] : []))
  const imageFeatures =
    needed.length > 0 ? await selectImageFeatures(model, inputs, needed, imageTokens.length, pacing) : undefined
  if (needed.length > 0 && !imageFeatures) return undefined
  const suffixes = prompts.map((ids, row) => ids.slice(reused[row]))
  const M = Math.max(...suffixes.map((ids) => ids.length))
  const padId = imageTokenId === 0 ? 1 : 0
  const padded = suffixes.map((ids) => [...Array<number>(M - ids.length).fill(padId), ...ids])
  return disposingAfter(imageFeatures ? [imageFeatures] : [], () =>
    tf.tidy(() => model.embed({ inputIds: tf.tensor2d(padded, [prompts.length, M], 'int32'), imageFeatures }))
  )
}

/**
 * Forward of embeddings `[B, M, D]` after `past`. With pacing, in equal chunks of at most `prefillChunkSize` tokens with a pause in
 * between; undefined after an abort.
 */
const forwardChunks = async (
  model: InternVL,
  embeds: tf.Tensor3D,
  past: KVCache | undefined,
  layout: Parameters<typeof forward>[3],
  pacing: Pacing
): Promise<ForwardResult | undefined> => {
  const { signal, prefillChunkSize = TOKENS_PER_CHUNK } = pacing
  const [B, M, D] = embeds.shape
  const chunks = isPaced(pacing) ? Math.ceil(M / prefillChunkSize) : 1
  if (chunks === 1) return signal?.aborted ? undefined : forward(model, embeds, past, layout)
  let output: ForwardResult | undefined
  const release = (): void => {
    if (!output) return
    disposeForward(output)
    output = undefined
  }
  for (let i = 0; i < chunks; i++) {
    if (signal?.aborted) {
      release()
      return undefined
    }
    const [start, end] = [Math.floor((i * M) / chunks), Math.floor(((i + 1) * M) / chunks)]
    const chunk = embeds.slice([0, start, 0], [B, end - start, D])
    const kv = output?.batch.kv ?? past
    try {
      const next = disposingAfter([chunk], () => forward(model, chunk, kv, layout))
      release()
      output = next
    } catch (error) {
      release()
      throw error
    }
    if (end < M) await takePause(pacing)
  }
  return output
}

/**
 * Forward of the prompts, their tokens at the given positions. The common prefix of a row with its `cache` is not computed again,
 * images included. Every row computes as many tokens as the row that needs most, so that no padding separates its tokens. An abort
 * of `signal` is noticed after at most one tile or one chunk of tokens; the result is then undefined. Throws an `InternVLError` with
 * the tag `InvalidLogits` if the logits are NaN or infinite.
 */
export const prefill = async (
  model: InternVL,
  inputs: GenerateInputs,
  prompts: readonly (readonly number[])[],
  positions: Positions,
  options: Pick<
    GenerateOptions,
    'cache' | 'cacheImplementation' | 'imageTokenId' | 'kvCache' | 'ropeLength' | 'removeInvalidValues'
  > &
    Pacing = {}
): Promise<ForwardResult | undefined> => {
  const { cache: caches = [], imageTokenId, ropeLength = 0 } = options
  const missing = prompts.map((ids, row) => ids.length - reusableLength(ids, positions[row]!, caches[row]))
  const reused = prompts.map((ids) => Math.max(0, ids.length - Math.max(...missing)))
  const longestReused = Math.max(...reused)
  if (longestReused > 0 && imageTokenId === undefined && (inputs.pixelValues ?? inputs.imageFeatures))
    throw new RangeError('imageTokenId: expected a token id if cache is given with images; take it from the configuration')
  const past = longestReused === 0 ? undefined : concatRows(caches, reused)
  try {
    const embeds = await (longestReused === 0
      ? embedPrompts(model, inputs, options)
      : embedSuffix(model, inputs, prompts, reused, options))
    if (!embeds) return undefined
    const length = longestReused + embeds.shape[1]
    const layout = {
      padding: prompts.map((ids) => length - ids.length),
      positions,
      longestLength: Math.max(...positions.map((row) => positionAt(row, row.length))),
      ropeLength
    }
    const type = kvCacheOf(options)
    const bound = type ? withKVCacheType(model, type) : model
    const output = await forwardChunks(bound, embeds, past, layout, options).finally(() => embeds.dispose())
    if (output && !options.removeInvalidValues)
      await checkLogits(output.logits).catch((error: unknown) => {
        disposeForward(output)
        throw error
      })
    return output
  } finally {
    disposeCache(past ?? [])
  }
}
