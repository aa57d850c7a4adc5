import {
  combineLayerCaches,
  cropCache,
  type KeyAxis,
  type LayerCache,
  mapLayerCache,
  padPositions,
  slicePositions
} from '../../lib/nn/attention/kv-cache.js'
import type { Positions } from '../../lib/nn/rope.js'
import { tf } from '../../lib/tf.js'
import { cacheLength, type KVCache } from '../../models/decoders/decoder.js'
import type { InternVL } from '../../models/internvl/internvl.js'
import { positionAt } from '../../models/internvl/v2pe.js'
import { disposeInnerOutputs, type InnerOutputs, innerOutputs } from './outputs/inner-outputs.js'

/** KV cache of one finished row: keys and values `[1, G, L, K]` of its L tokens, without padding. Its owner calls `disposeCache(cache.kv)`. */
export interface RowCache {
  readonly kv: KVCache
  /** The L token ids. */
  readonly ids: readonly number[]
  /** Position id of each token; rotary embeddings of the keys depend on it. */
  readonly positions: readonly number[]
  /** Whether each tile of the prompt was compressed; of models with a router (InternVL3.5-Flash). */
  readonly compressed?: readonly boolean[]
}

/** Padding and positions of the rows of a batch. */
interface BatchLayout {
  /** Number of padding positions on the left of each row. */
  readonly padding: readonly number[]
  /** Position ids of each row's prompt; the answer continues from the last of them. */
  readonly positions: Positions
  /** Positions of the longest row, rows that have finished included: rotary frequencies may depend on it. */
  readonly longestLength: number
  /** Lower bound of the length that rotary frequencies are computed for. */
  readonly ropeLength: number
}

/** A batch during decoding: keys and values `[B, G, L, K]` of each layer. */
export interface Batch extends BatchLayout {
  readonly kv: KVCache
}

/** Result of a forward: logits `[B, V]` of the next token, the batch with its extended cache, and the inner outputs that the model returns. */
export interface ForwardResult extends InnerOutputs {
  readonly logits: tf.Tensor2D
  readonly batch: Batch
}

/** Disposes the keys and values of every layer. */
export const disposeCache = (kv: KVCache): void => {
  for (const { key, value } of kv) tf.dispose([key, value])
}

/** Disposes every tensor of a forward's result. */
export const disposeForward = (output: ForwardResult): void => {
  output.logits.dispose()
  disposeCache(output.batch.kv)
  disposeInnerOutputs(output)
}

/** Applies `f` to the keys and values of every layer; the new cache has `length` used positions. */
const mapCache = (kv: KVCache, f: (t: tf.Tensor4D, axis: KeyAxis) => tf.Tensor4D, length: number): KVCache =>
  kv.map((cache) => mapLayerCache(cache, f, length))

/** `combineLayerCaches` of every layer; the caches have the same layers and one type. */
export const combineCaches = (
  caches: readonly KVCache[],
  f: (tensors: readonly tf.Tensor4D[], axis: KeyAxis) => tf.Tensor4D,
  length: number
): KVCache =>
  caches[0]!.map((_, layer) =>
    combineLayerCaches(
      caches.map((kv) => kv[layer]!),
      f,
      length
    )
  )

/** Runs `f` and then disposes the tensors, also when `f` throws. */
export const disposingAfter = <A>(tensors: readonly tf.Tensor[], f: () => A): A => {
  try {
    return f()
  } finally {
    tf.dispose([...tensors])
  }
}

/** Every key and value tensor of a cache. */
export const tensorsOf = (kv: KVCache): readonly tf.Tensor[] => kv.flatMap(({ key, value }) => [key, value])

/** Tensors that a forward returns from `tf.tidy`. */
type ForwardTensors = { logits: tf.Tensor2D; kv: LayerCache[] } & InnerOutputs & tf.TensorContainerObject

/**
 * Runs the decoder on embeddings `[B, M, D]` that follow `past`. `layout` describes the batch after the forward. Logits are those of the last
 * `logitsToKeep` positions, `[B · logitsToKeep, V]`.
 */
export const forward = (
  model: InternVL,
  embeds: tf.Tensor3D,
  past: KVCache | undefined,
  layout: BatchLayout,
  logitsToKeep = 1
): ForwardResult => {
  const { padding, positions, longestLength } = layout
  const [B, P, M] = [padding.length, cacheLength(past), embeds.shape[1]]
  const positionIds = padding.map((pad, row) =>
    Array.from({ length: M }, (_, i) => positionAt(positions[row]!, Math.max(0, P + i - pad)))
  )
  const mask = () => padding.map((pad) => Array.from({ length: P + M }, (_, i) => (i < pad ? 0 : 1)))
  const { logits, kv, ...inner } = tf.tidy((): ForwardTensors => {
    const attentionMask = padding.some((pad) => pad > 0) ? tf.tensor2d(mask(), [B, P + M], 'int32') : undefined
    const ropeLength = Math.max(longestLength, layout.ropeLength)
    const out = model.decode(embeds, { cache: past, attentionMask, positionIds, ropeLength, useCache: true, logitsToKeep })
    const logits = out.logits.reshape<tf.Tensor2D>([B * logitsToKeep, -1])
    const hiddenStates = out.hiddenStates?.map((states) => states.clone()) // the first are `embeds`, whose owner disposes them
    return { logits, kv: [...out.cache!], ...innerOutputs({ ...out, hiddenStates }) } as ForwardTensors
  })
  return { logits, batch: { ...layout, kv }, ...innerOutputs(inner) }
}

/** Forward of one token for each row. The caller still owns the given batch. */
export const forwardTokens = (model: InternVL, { kv, ...layout }: Batch, tokens: readonly number[]): ForwardResult => {
  const embeds = tf.tidy(() => model.embed({ inputIds: tf.tensor2d([...tokens], [tokens.length, 1], 'int32') }))
  return disposingAfter([embeds], () => forward(model, embeds, kv, { ...layout, longestLength: layout.longestLength + 1 }))
}

/** Forward of several tokens of a batch of one row; logits `[logitsToKeep, V]` of the last. The caller still owns the given batch. */
export const forwardSequence = (
  model: InternVL,
  { kv, ...layout }: Batch,
  tokens: readonly number[],
  logitsToKeep: number
): ForwardResult => {
  const embeds = tf.tidy(() => model.embed({ inputIds: tf.tensor2d([...tokens], [1, tokens.length], 'int32') }))
  const longestLength = layout.longestLength + tokens.length
  return disposingAfter([embeds], () => forward(model, embeds, kv, { ...layout, longestLength }, logitsToKeep))
}

/** A batch without its positions from `length` on. The tensors are those of the given batch, which must not be used any more. */
export const cropBatch = (batch: Batch, length: number): Batch => {
  const dropped = cacheLength(batch.kv) - length
  if (dropped === 0) return batch
  return {
    ...batch,
    kv: batch.kv.map((cache) => cropCache(cache, length)),
    longestLength: batch.longestLength - dropped
  }
}

/** Gathers rows of a batch into a new batch, in the given order; a row may be repeated. */
export const selectRows = (batch: Batch, rows: readonly number[]): Batch => {
  const index = tf.tensor1d([...rows], 'int32')
  const kv = disposingAfter([index], () => mapCache(batch.kv, (t) => t.gather(index), cacheLength(batch.kv)))
  const [padding, positions] = [rows.map((row) => batch.padding[row]!), rows.map((row) => batch.positions[row]!)]
  return { ...batch, kv, padding, positions }
}

/** Copies the cache of one row without its padding, for a later `generate` call; `ids` are all tokens of the row. */
export const rowCache = ({ kv, padding, positions }: Batch, row: number, ids: readonly number[]): RowCache => {
  const start = padding[row]!
  const length = cacheLength(kv) - start
  const sliceRow = (t: tf.Tensor4D, axis: KeyAxis) => slicePositions(t.slice([row], [1]), axis, start, length)
  return {
    kv: mapCache(kv, sliceRow, length),
    ids: ids.slice(0, length),
    positions: Array.from({ length }, (_, i) => positionAt(positions[row]!, i))
  }
}

/**
 * Number of prompt tokens that need no forward because the cache has them: the longest common prefix with equal ids and
 * positions. The last token is always computed, since its logits are needed.
 */
export const reusableLength = (ids: readonly number[], positions: readonly number[], cache: RowCache | undefined): number => {
  const differs = ids.findIndex((id, i) => id !== cache?.ids[i] || positions[i] !== cache.positions[i])
  return Math.min(differs < 0 ? ids.length : differs, ids.length - 1)
}

/** Joins the first `lengths[row]` positions of each row's cache, padded on the left: keys and values `[B, G, max(lengths), K]`. */
export const concatRows = (caches: ReadonlyArray<RowCache | undefined>, lengths: readonly number[]): KVCache => {
  const longest = Math.max(...lengths)
  const present = caches.filter((cache) => cache !== undefined)
  const types = [...new Set(caches.flatMap((cache) => cache?.kv[0]?.type ?? []))]
  if (types.length > 1)
    throw new RangeError(`cache: expected rows of one type, got ${types.join(' and ')}; use one kvCache for all`)
  /** The row of a missing cache has padding alone: the positions of any other cache are cut to none. */
  const joined = (tensors: readonly tf.Tensor4D[], axis: KeyAxis): tf.Tensor4D => {
    const rows = lengths.map((length, row) => {
      const t = tensors[Math.max(0, present.indexOf(caches[row]!))]!
      return padPositions(slicePositions(t, axis, 0, caches[row] ? length : 0), axis, [longest - length, 0])
    })
    return tf.concat4d(rows, 0)
  }
  return combineCaches(
    present.map(({ kv }) => kv),
    joined,
    longest
  )
}
