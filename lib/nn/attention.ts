import { fused } from '../ops/fused.js'
import { tf } from '../tf.js'

/** Scores that stand for "never": far below any real one, yet finite, so that a row with nothing to see gives no NaN. */
const never = -1e9

/** 64 Mi, 256 MiB in float32. */
const defaultMaxScores = 64 * 2 ** 20

/** What a query may see, beyond itself. All optional: without any, everything. */
export interface Visibility {
  /** Number of keys that stand before the first query; queries then see only keys up to themselves. */
  readonly causalFrom?: number
  /** At most this many keys, the query's own included: sliding-window attention. */
  readonly window?: number | undefined
  /** Additive mask `[B, 1, 1, Lk]`, 0 for keys to see, hugely negative for padding. */
  readonly padding?: tf.Tensor4D | undefined
  /** One more score a head, `[H]`, that takes part in the softmax and has no value: attention sinks. */
  readonly sinks?: tf.Tensor1D | undefined
  /** Number of the sample that each key belongs to, `[B, Lk]` int32: a query sees only keys of its own. The queries are the last Lq. */
  readonly segments?: tf.Tensor2D | undefined
}

/** `[B, L, H·K] → [B, H, L, K]`. */
export const splitHeads = (x: tf.Tensor3D, heads: number): tf.Tensor4D => {
  const [B, L, D] = x.shape
  if (L === 1) return x.reshape([B, heads, L, D / heads]) // the order is the same
  return x.reshape<tf.Tensor4D>([B, L, heads, D / heads]).transpose([0, 2, 1, 3])
}

/** `[B, H, L, K] → [B, L, H·K]`. */
export const mergeHeads = (x: tf.Tensor4D): tf.Tensor3D => {
  const [B, H, L, K] = x.shape
  return (L === 1 ? x : x.transpose([0, 2, 1, 3])).reshape([B, L, H * K])
}

/** Additive mask of an attention mask `[B, L]` of ones and zeros: `[B, 1, 1, L]`; none where every entry is one. */
export const paddingMask = (attentionMask: tf.Tensor2D): tf.Tensor4D | undefined =>
  attentionMask.dataSync().every((seen) => seen !== 0)
    ? undefined
    : tf.tidy(() => attentionMask.toFloat().sub(1).mul(-never).reshape([attentionMask.shape[0], 1, 1, attentionMask.shape[1]]))

/** Additive `[1, 1, rows, columns]`: row i, at position `from + i`, sees columns up to its own, at most `window` of them. */
const causalMask = (from: number, rows: number, columns: number, window = Number.POSITIVE_INFINITY): tf.Tensor4D => {
  const own = tf.range(from, from + rows, 1, 'float32').reshape([rows, 1])
  const distance = own.sub(tf.range(0, columns, 1, 'float32').reshape([1, columns]))
  const hidden = distance.less(0)
  const all = Number.isFinite(window) ? hidden.logicalOr(distance.greaterEqual(window)) : hidden
  return all.toFloat().mul(never).reshape([1, 1, rows, columns])
}

/** Additive `[B, 1, rows, columns]`: the row at position `from + i` sees columns of its own segment. */
const segmentMask = (segments: tf.Tensor2D, from: number, rows: number, columns: number): tf.Tensor4D => {
  const B = segments.shape[0]
  const own = segments.slice([0, from], [B, rows]).reshape([B, 1, rows, 1])
  const theirs = segments.slice([0, 0], [B, columns]).reshape([B, 1, 1, columns])
  return own.notEqual(theirs).toFloat().mul(never)
}

/** Softmax over the last axis of scores `[B, H, Lq, Lk]` with one more column, the head's sink, which is then dropped. */
const softmaxWithSinks = (scores: tf.Tensor4D, sinks: tf.Tensor1D): tf.Tensor4D => {
  const [B, H, Lq, Lk] = scores.shape
  const column = tf.tile(sinks.reshape([1, H, 1, 1]), [B, 1, Lq, 1])
  return tf.softmax(tf.concat([scores, column], 3)).slice([0, 0, 0, 0], [B, H, Lq, Lk]) as tf.Tensor4D
}

/** One block of queries `[B, H, Lq, K]`, whose first stands `offset` queries after the first of all. */
const attendBlock = (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, scale: number, see: Visibility, offset: number) => {
  const [B, H, Lq, K] = q.shape
  const [G, Lk] = [k.shape[1], k.shape[2]]
  // grouped queries: the H/G heads that share a key stand as further rows, so no key or value is copied
  const grouped = q.reshape<tf.Tensor4D>([B, G, (H / G) * Lq, K])
  let scores = tf.matMul(grouped.mul(scale), k, false, true).reshape<tf.Tensor4D>([B, H, Lq, Lk])
  const causal = see.causalFrom !== undefined && (Lq > 1 || see.window !== undefined)
  if (causal) scores = scores.add(causalMask(see.causalFrom! + offset, Lq, Lk, see.window))
  if (see.padding) scores = scores.add(see.padding.slice([0, 0, 0, 0], [see.padding.shape[0], 1, 1, Lk]))
  if (see.segments) scores = scores.add(segmentMask(see.segments, (see.causalFrom ?? 0) + offset, Lq, Lk))
  const weights = see.sinks ? softmaxWithSinks(scores, see.sinks) : tf.softmax(scores)
  return tf.matMul(weights.reshape<tf.Tensor4D>([B, G, (H / G) * Lq, Lk]), v).reshape<tf.Tensor4D>([B, H, Lq, K])
}

const attendInBlocks = (
  q: tf.Tensor4D,
  k: tf.Tensor4D,
  v: tf.Tensor4D,
  scale: number,
  see: Visibility = {},
  maxScores = defaultMaxScores
): tf.Tensor4D => {
  const [B, H, Lq, K] = q.shape
  const Lk = k.shape[2]
  const rows = Math.max(1, Math.min(Lq, Math.floor(maxScores / (B * H * Lk))))
  if (rows >= Lq) return attendBlock(q, k, v, scale, see, 0)
  const blocks = Array.from({ length: Math.ceil(Lq / rows) }, (_, i) => i * rows).map((start) =>
    tf.tidy(() => {
      const size = Math.min(rows, Lq - start)
      const seen = see.causalFrom === undefined ? Lk : see.causalFrom + start + size
      const upTo = (t: tf.Tensor4D) => t.slice([0, 0, 0, 0], [B, t.shape[1], seen, K])
      return attendBlock(q.slice([0, 0, start, 0], [B, H, size, K]), upTo(k), upTo(v), scale, see, start)
    })
  )
  return tf.concat(blocks, 2)
}

/**
 * `softmax(q kᵀ · scale + mask) v`: queries `[B, H, Lq, K]`, keys and values `[B, G, Lk, K]` with G dividing H
 * (grouped-query attention), result `[B, H, Lq, K]`. Long inputs go in blocks of queries, so that memory for the scores is
 * bounded: at most `maxScores` numbers of `[B, H, Lq, Lk]`, yet a row. A causal block reads only the keys that it can see.
 */
export const attend = (
  q: tf.Tensor4D,
  k: tf.Tensor4D,
  v: tf.Tensor4D,
  scale: number,
  see: Visibility = {},
  maxScores = defaultMaxScores
): tf.Tensor4D => {
  const { causalFrom, window, padding, sinks } = see
  const inputs = { q, k, v, padding, sinks }
  const composition = (t: typeof inputs) =>
    attendInBlocks(t.q, t.k, t.v, scale, { ...see, padding: t.padding, sinks: t.sinks }, maxScores)
  const causal = causalFrom !== undefined
  if (see.segments) return composition(inputs) // kernels know none
  if (causal && causalFrom + q.shape[2] !== k.shape[2]) return composition(inputs) // keys beyond the last query
  return fused('Attention', inputs, { scale, causal, window }, composition)
}

/** Full attention of merged heads: queries, keys and values `[B, L, H·K]`, result too. */
export const attendMerged = (q: tf.Tensor3D, k: tf.Tensor3D, v: tf.Tensor3D, heads: number, scale: number): tf.Tensor3D =>
  fused('Attention', { q, k, v }, { scale, heads }, (t) =>
    mergeHeads(attendInBlocks(splitHeads(t.q, heads), splitHeads(t.k, heads), splitHeads(t.v, heads), scale))
  )
