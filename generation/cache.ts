import { expectShape, ShapeError } from '../lib/shape.js'
import { tf } from '../lib/tf.js'
import { cacheLength, type KVCache, type LayerCache } from '../models/decoders/decoder.js'
import type { InternVL } from '../models/internvl.js'

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

/** What is known of one row after a run: keys and values `[1, G, L, K]` of its L ids, without padding. Its owner calls `disposeCache`. */
export interface RowCache {
  readonly kv: KVCache
  readonly ids: readonly number[]
}

/** Rows under way: keys and values `[B, G, L, K]`, of which each row's first `padding` places mean nothing. */
export interface Batch {
  readonly kv: KVCache
  readonly padding: readonly number[]
}

/** Rows after a forward: logits `[B, V]` of what comes next. */
export interface Forward {
  readonly logits: tf.Tensor2D
  readonly batch: Batch
}

export const disposeCache = (kv: KVCache): void => {
  for (const { key, value } of kv) tf.dispose([key, value])
}

const mapCache = (kv: KVCache, f: (t: tf.Tensor4D) => tf.Tensor4D): KVCache =>
  kv.map(({ key, value }): LayerCache => ({ key: tf.tidy(() => f(key)), value: tf.tidy(() => f(value)) }))

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

/** What `tf.tidy` keeps of a forward. */
type Output = { logits: tf.Tensor2D; kv: LayerCache[] }

/** `model.decode` of embeddings `[B, M, D]` after a batch, whose padding is the new batch's too. */
const forward = (model: InternVL, embeds: tf.Tensor3D, past: KVCache | undefined, padding: readonly number[]): Forward => {
  const [P, M] = [cacheLength(past), embeds.shape[1]]
  const positionIds = padding.map((pad) => Array.from({ length: M }, (_, i) => Math.max(0, P + i - pad)))
  const mask = padding.map((pad) => Array.from({ length: P + M }, (_, i) => (i < pad ? 0 : 1)))
  const { logits, kv } = tf.tidy(() => {
    const attentionMask = padding.some((pad) => pad > 0) ? tf.tensor2d(mask, [padding.length, P + M], 'int32') : undefined
    const out = model.decode(embeds, { cache: past, attentionMask, positionIds, useCache: true, logitsToKeep: 1 })
    return { logits: out.logits.reshape<tf.Tensor2D>([padding.length, -1]), kv: [...out.cache!] } as Output &
      tf.TensorContainerObject
  })
  return { logits, batch: { kv, padding } }
}

const commonPrefix = (a: readonly number[], b: readonly number[]): number => {
  const differs = a.findIndex((id, i) => id !== b[i])
  return differs < 0 ? a.length : differs
}

/** Of each row the first `kept[row]` places, aligned on the right: keys and values `[B, G, max(kept), K]`. */
const joinRows = (caches: ReadonlyArray<RowCache | undefined>, kept: readonly number[]): KVCache => {
  const longest = Math.max(...kept)
  const some = caches.find((cache) => cache !== undefined)!.kv
  const part = (kv: KVCache | undefined, layer: number, of: keyof LayerCache, n: number): tf.Tensor4D => {
    const [, G, , K] = some[layer]![of].shape
    if (!kv || n === 0) return tf.zeros([1, G, longest, K])
    const t = kv[layer]![of].slice([0, 0, 0, 0], [1, G, n, K])
    return n === longest
      ? t
      : t.pad([
          [0, 0],
          [0, 0],
          [longest - n, 0],
          [0, 0]
        ])
  }
  const joined = (layer: number, of: keyof LayerCache) =>
    tf.tidy(() =>
      tf.concat4d(
        caches.map((cache, row) => part(cache?.kv, layer, of, kept[row]!)),
        0
      )
    )
  return some.map((_, layer) => ({ key: joined(layer, 'key'), value: joined(layer, 'value') }))
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
 * Reads the prompts. What `caches` know of a row's beginning is not computed again, pictures in it included; every row then
 * computes as many tokens as the one that needs most, so that no padding comes to stand between tokens.
 */
export const prefill = (
  model: InternVL,
  inputs: GenerateInputs,
  prompts: readonly (readonly number[])[],
  caches: ReadonlyArray<RowCache | undefined> = [],
  imageTokenId?: number
): Forward => {
  const [B, L] = inputs.inputIds.shape
  const fresh = prompts.map((ids, row) => ids.length - Math.min(commonPrefix(ids, caches[row]?.ids ?? []), ids.length - 1))
  const kept = prompts.map((ids) => Math.max(0, ids.length - Math.max(...fresh)))
  const reused = Math.max(...kept)
  if (reused === 0) {
    const embeds = model.embed(inputs)
    const done = () =>
      forward(
        model,
        embeds,
        undefined,
        prompts.map((ids) => L - ids.length)
      )
    return finallyDispose([embeds], done)
  }
  if (imageTokenId === undefined && (inputs.pixelValues ?? inputs.imageFeatures))
    throw new RangeError('imageTokenId: it is needed with cache, to know which pictures are in it')
  const past = joinRows(
    Array.from({ length: B }, (_, row) => caches[row]),
    kept
  )
  return finallyDispose(
    past.flatMap(({ key, value }) => [key, value]),
    () => {
      const embeds = embedRest(model, inputs, prompts, kept, imageTokenId)
      const padding = prompts.map((ids) => reused + embeds.shape[1] - ids.length)
      return finallyDispose([embeds], () => forward(model, embeds, past, padding))
    }
  )
}

const finallyDispose = <A>(tensors: readonly tf.Tensor[], f: () => A): A => {
  try {
    return f()
  } finally {
    tf.dispose([...tensors])
  }
}

/** One token for each row, and what comes next. The batch before stays its owner's. */
export const advance = (model: InternVL, { kv, padding }: Batch, tokens: readonly number[]): Forward => {
  const embeds = tf.tidy(() => model.embed({ inputIds: tf.tensor2d([...tokens], [tokens.length, 1], 'int32') }))
  return finallyDispose([embeds], () => forward(model, embeds, kv, padding))
}

/** The given rows of a batch, in that order; a row may come several times. A new batch. */
export const selectRows = ({ kv, padding }: Batch, rows: readonly number[]): Batch => {
  const index = tf.tensor1d([...rows], 'int32')
  return finallyDispose([index], () => ({
    kv: mapCache(kv, (t) => t.gather(index)),
    padding: rows.map((row) => padding[row]!)
  }))
}

/** One row of a batch without its padding, as it can be handed to the next run; `ids` are all tokens of the row so far. */
export const rowCache = ({ kv, padding }: Batch, row: number, ids: readonly number[]): RowCache => {
  const from = padding[row]!
  const part = (t: tf.Tensor4D) => t.slice([row, 0, from, 0], [1, t.shape[1], t.shape[2] - from, t.shape[3]])
  return { kv: mapCache(kv, part), ids: ids.slice(0, cacheLength(kv) - from) }
}
