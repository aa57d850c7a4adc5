import { type LayerCache, layerCache } from '../../lib/nn/kv-cache.js'
import type { Positions } from '../../lib/nn/rope.js'
import { tf } from '../../lib/tf.js'
import { cacheLength, type KVCache } from '../../models/decoders/decoder.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { positionAt } from '../../models/internvl/v2pe.js'

/** What is known of one row after a run: keys and values `[1, G, L, K]` of its L ids, without padding. Its owner calls `disposeCache`. */
export interface RowCache {
  readonly kv: KVCache
  readonly ids: readonly number[]
  /** Of each id: its keys are turned by it. */
  readonly positions: readonly number[]
}

/** Where the rows of a batch stand. */
interface Places {
  /** Each row's first so many places mean nothing. */
  readonly padding: readonly number[]
  /** Of each row's prompt; its answer goes on from there. */
  readonly positions: Positions
  /** Positions that the longest row has, or would have if it had not ended: rotary frequencies may depend on it. */
  readonly reach: number
  /** Rotary frequencies are those for so many positions at least. */
  readonly ropeLength: number
}

/** Rows under way: keys and values `[B, G, L, K]`. */
export interface Batch extends Places {
  readonly kv: KVCache
}

/** Rows after a forward: logits `[B, V]` of what comes next. */
export interface Forward {
  readonly logits: tf.Tensor2D
  readonly batch: Batch
}

export const disposeCache = (kv: KVCache): void => {
  for (const { key, value } of kv) tf.dispose([key, value])
}

/** A new cache of what `f` makes of each layer's keys and values; `length` positions of that count. */
const mapCache = (kv: KVCache, f: (t: tf.Tensor4D) => tf.Tensor4D, length: number): KVCache =>
  kv.map(({ key, value }) =>
    layerCache(
      tf.tidy(() => f(key)),
      tf.tidy(() => f(value)),
      length
    )
  )

/** Runs `f`, then disposes the tensors, whatever happens. */
export const using = <A>(tensors: readonly tf.Tensor[], f: () => A): A => {
  try {
    return f()
  } finally {
    tf.dispose([...tensors])
  }
}

export const tensorsOf = (kv: KVCache): readonly tf.Tensor[] => kv.flatMap(({ key, value }) => [key, value])

/** What `tf.tidy` keeps of a forward. */
type Output = { logits: tf.Tensor2D; kv: LayerCache[] } & tf.TensorContainerObject

/** `model.decode` of embeddings `[B, M, D]` after `past`; the places are those after it. */
export const forward = (model: InternVL, embeds: tf.Tensor3D, past: KVCache | undefined, places: Places): Forward => {
  const { padding, positions, reach } = places
  const [B, P, M] = [padding.length, cacheLength(past), embeds.shape[1]]
  const positionIds = padding.map((pad, row) =>
    Array.from({ length: M }, (_, i) => positionAt(positions[row]!, Math.max(0, P + i - pad)))
  )
  const mask = () => padding.map((pad) => Array.from({ length: P + M }, (_, i) => (i < pad ? 0 : 1)))
  const { logits, kv } = tf.tidy((): Output => {
    const attentionMask = padding.some((pad) => pad > 0) ? tf.tensor2d(mask(), [B, P + M], 'int32') : undefined
    const ropeLength = Math.max(reach, places.ropeLength)
    const out = model.decode(embeds, { cache: past, attentionMask, positionIds, ropeLength, useCache: true, logitsToKeep: 1 })
    return { logits: out.logits.reshape<tf.Tensor2D>([B, -1]), kv: [...out.cache!] } as Output
  })
  return { logits, batch: { ...places, kv } }
}

/** One token for each row, and what comes next. The batch before stays its owner's. */
export const advance = (model: InternVL, { kv, ...places }: Batch, tokens: readonly number[]): Forward => {
  const embeds = tf.tidy(() => model.embed({ inputIds: tf.tensor2d([...tokens], [tokens.length, 1], 'int32') }))
  return using([embeds], () => forward(model, embeds, kv, { ...places, reach: places.reach + 1 }))
}

/** The given rows of a batch, in that order; a row may come several times. A new batch. */
export const selectRows = (batch: Batch, rows: readonly number[]): Batch => {
  const index = tf.tensor1d([...rows], 'int32')
  const kv = using([index], () => mapCache(batch.kv, (t) => t.gather(index), cacheLength(batch.kv)))
  const [padding, positions] = [rows.map((row) => batch.padding[row]!), rows.map((row) => batch.positions[row]!)]
  return { ...batch, kv, padding, positions }
}

/** One row of a batch without its padding, as it can be handed to the next run; `ids` are all tokens of the row so far. */
export const rowCache = ({ kv, padding, positions }: Batch, row: number, ids: readonly number[]): RowCache => {
  const from = padding[row]!
  const length = cacheLength(kv) - from
  const part = (t: tf.Tensor4D) => t.slice([row, 0, from, 0], [1, t.shape[1], length, t.shape[3]])
  const places = Array.from({ length }, (_, i) => positionAt(positions[row]!, i))
  return { kv: mapCache(kv, part, length), ids: ids.slice(0, length), positions: places }
}

/** How many tokens of a prompt need not be computed with a cache: those that are in it at the same positions, but for the last. */
export const reusable = (ids: readonly number[], positions: readonly number[], cache: RowCache | undefined): number => {
  const differs = ids.findIndex((id, i) => id !== cache?.ids[i] || positions[i] !== cache.positions[i])
  return Math.min(differs < 0 ? ids.length : differs, ids.length - 1)
}

/** Of each row the first `kept[row]` places, aligned on the right: keys and values `[B, G, max(kept), K]`. */
export const joinRows = (caches: ReadonlyArray<RowCache | undefined>, kept: readonly number[]): KVCache => {
  const longest = Math.max(...kept)
  const some = caches.find((cache) => cache !== undefined)!.kv
  const part = (t: tf.Tensor4D | undefined, like: tf.Tensor4D, n: number): tf.Tensor4D => {
    const [, G, , K] = like.shape
    const empty = tf.zeros<tf.Rank.R4>([1, G, longest - n, K])
    if (!t || n === 0) return empty
    const seen = t.slice([0, 0, 0, 0], [1, G, n, K])
    return n === longest ? seen : tf.concat4d([empty, seen], 2)
  }
  const joined = (layer: number, of: 'key' | 'value') =>
    tf.tidy(() =>
      tf.concat4d(
        kept.map((n, row) => part(caches[row]?.kv[layer]?.[of], some[layer]![of], n)),
        0
      )
    )
  return some.map((_, layer) => layerCache(joined(layer, 'key'), joined(layer, 'value')))
}
