import type { Positions } from '../../lib/nn/rope.js'
import { expectShape, ShapeError } from '../../lib/shape.js'
import { tf } from '../../lib/tf.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { positionAt } from '../../models/internvl/v2pe.js'
import { type Forward, forward, joinRows, reusable, tensorsOf, using } from './batch-cache.js'
import type { GenerateOptions } from './generation-options.js'

/** A batch of prompts, padded on the left. The caller owns the tensors. */
export interface GenerateInputs {
  /** `[B, L]` */
  readonly inputIds: tf.Tensor2D
  /** `[B, L]`, 0 is padding; without it there is none. */
  readonly attentionMask?: tf.Tensor2D | undefined
  /** Tiles `[T, C, H, W]` of all pictures, in the order of their tokens. */
  readonly pixelValues?: tf.Tensor4D | undefined
  /** `[T, N, D]`, instead of `pixelValues`. */
  readonly imageFeatures?: tf.Tensor3D | undefined
}

/** The prompts of a batch without their padding. Throws a `RangeError` where padding is not on the left. */
export const promptsOf = ({ inputIds, attentionMask }: GenerateInputs): readonly (readonly number[])[] => {
  const [B, L] = inputIds.shape
  if (attentionMask) expectShape('attentionMask', attentionMask, [B, L])
  const [ids, mask] = [inputIds.dataSync(), attentionMask?.dataSync()]
  return Array.from({ length: B }, (_, row) => {
    const seen = Array.from({ length: L }, (_, i) => (mask?.[row * L + i] ?? 1) !== 0)
    const first = seen.indexOf(true)
    if (first < 0) throw new RangeError(`attentionMask: row ${row} is padding alone`)
    if (seen.includes(false, first)) throw new RangeError(`attentionMask: row ${row} has padding that is not on its left`)
    return Array.from(ids.subarray(row * L + first, (row + 1) * L))
  })
}

/** Features `[1, n, D]` for the image tokens numbered `needed` of `total`; only the tiles that have one are encoded. */
const featuresOf = (model: InternVL, inputs: GenerateInputs, needed: readonly number[], total: number) =>
  tf.tidy(() => {
    const { pixelValues, imageFeatures: ready } = inputs
    const T = (ready ?? pixelValues)?.shape[0] ?? 0
    if (T === 0 || total % T !== 0) throw new ShapeError(`merge: ${total} image tokens in inputIds, ${T} tiles`)
    const N = total / T
    const tiles = [...new Set(needed.map((token) => Math.floor(token / N)))]
    const chosen = tf.tensor1d(tiles, 'int32')
    const features = ready ? ready.gather(chosen) : model.imageFeatures(pixelValues!.gather(chosen))
    if (features.shape[1] !== N)
      throw new ShapeError(`merge: ${total} image tokens in inputIds, ${T * features.shape[1]!} image features`)
    const places = needed.map((token) => tiles.indexOf(Math.floor(token / N)) * N + (token % N))
    const D = features.shape[2]!
    return features.reshape([-1, D]).gather(tf.tensor1d(places, 'int32')).reshape<tf.Tensor3D>([1, needed.length, D])
  })

/** Embeddings `[B, M, D]` of what comes after the `kept` first tokens of each prompt, padded on the left. */
const embedRest = (
  model: InternVL,
  inputs: GenerateInputs,
  prompts: readonly (readonly number[])[],
  kept: readonly number[],
  imageTokenId: number | undefined
): tf.Tensor3D =>
  tf.tidy(() => {
    const places = prompts.flatMap((ids, row) => ids.flatMap((id, i) => (id === imageTokenId ? [{ row, i }] : [])))
    const needed = places.flatMap(({ row, i }, n) => (i >= kept[row]! ? [n] : []))
    const imageFeatures = needed.length > 0 ? featuresOf(model, inputs, needed, places.length) : undefined
    const rest = prompts.map((ids, row) => ids.slice(kept[row]))
    const M = Math.max(...rest.map((ids) => ids.length))
    const padId = imageTokenId === 0 ? 1 : 0
    const padded = rest.map((ids) => [...Array<number>(M - ids.length).fill(padId), ...ids])
    return model.embed({ inputIds: tf.tensor2d(padded, [prompts.length, M], 'int32'), imageFeatures })
  })

/**
 * Reads the prompts, their tokens at the given positions. What `cache` knows of a row's beginning is not computed again, pictures in
 * it included; every row then computes as many tokens as the one that needs most, so that no padding comes to stand between tokens.
 */
export const prefill = (
  model: InternVL,
  inputs: GenerateInputs,
  prompts: readonly (readonly number[])[],
  positions: Positions,
  { cache: caches = [], imageTokenId, ropeLength = 0 }: GenerateOptions = {}
): Forward => {
  const fresh = prompts.map((ids, row) => ids.length - reusable(ids, positions[row]!, caches[row]))
  const kept = prompts.map((ids) => Math.max(0, ids.length - Math.max(...fresh)))
  const reused = Math.max(...kept)
  const reach = Math.max(...positions.map((row) => positionAt(row, row.length)))
  const placesIn = (length: number) => ({ padding: prompts.map((ids) => length - ids.length), positions, reach, ropeLength })
  if (reused === 0) {
    const embeds = model.embed(inputs)
    return using([embeds], () => forward(model, embeds, undefined, placesIn(embeds.shape[1])))
  }
  if (imageTokenId === undefined && (inputs.pixelValues ?? inputs.imageFeatures))
    throw new RangeError('imageTokenId: it is needed with cache, to know which pictures are in it')
  const past = joinRows(caches, kept)
  return using(tensorsOf(past), () => {
    const embeds = embedRest(model, inputs, prompts, kept, imageTokenId)
    return using([embeds], () => forward(model, embeds, past, placesIn(reused + embeds.shape[1])))
  })
}
