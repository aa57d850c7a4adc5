import { valueText } from '../../error.js'
import { fused } from '../../ops/fused.js'
import { hasKernel } from '../../ops/kernel.js'
import { expectAxes, expectWhole, ShapeError } from '../../shape.js'
import { tf } from '../../tf.js'

/** Additive mask value: far below any score, but finite, so that a fully masked row gives no NaN. */
const maskedScore = -1e9

/** 64 Mi scores, 256 MiB in float32. */
const defaultMaxScores = 64 * 2 ** 20

/** Attention mask of queries over keys. Without options every query attends to every key. */
export interface AttentionMaskOptions {
  /** Causal mask: the number of keys before the first query; a query attends to keys up to its own position. */
  readonly causalFrom?: number
  /** Sliding-window attention: a query attends to at most this many keys, including the key of its own position. */
  readonly window?: number | undefined
  /** Additive mask `[B, 1, 1, Lk]`: 0 for tokens, a large negative number for padding. */
  readonly padding?: tf.Tensor4D | undefined
  /** Attention sinks: one more score for each head, `[H]`, that joins the softmax and has no value. */
  readonly sinks?: tf.Tensor1D | undefined
  /** Sample number of each key, `[B, Lk]` int32: a query attends to keys of its own sample only. The queries are the last Lq keys. */
  readonly segments?: tf.Tensor2D | undefined
}

/** Throws a `ShapeError` unless a width divides into the heads. */
export const expectHeads = (operation: string, heads: number, width: number): void => {
  expectWhole(operation, 'heads', heads, 1, 2 ** 20)
  if (width % heads !== 0) throw new ShapeError(`${operation}: a width of ${width} is not a multiple of ${heads} heads`)
}

/** `[B, L, H·K] → [B, H, L, K]`. */
export const splitHeads = (x: tf.Tensor3D, heads: number): tf.Tensor4D => {
  const { B, L, D } = expectAxes('splitHeads', { x: [x, 'B L D'] }) as Record<'B' | 'L' | 'D', number>
  expectHeads('splitHeads', heads, D)
  if (L === 1 || heads === 1) return x.reshape([B, heads, L, D / heads]) // no transpose needed: the memory order is equal
  return x.reshape<tf.Tensor4D>([B, L, heads, D / heads]).transpose([0, 2, 1, 3])
}

/** `[B, H, L, K] → [B, L, H·K]`. */
export const mergeHeads = (x: tf.Tensor4D): tf.Tensor3D => {
  expectAxes('mergeHeads', { x: [x, 'B H L K'] })
  const [B, H, L, K] = x.shape
  return (L === 1 || H === 1 ? x : x.transpose([0, 2, 1, 3])).reshape([B, L, H * K])
}

/** Additive mask `[B, 1, 1, L]` of an attention mask `[B, L]` of ones and zeros; `undefined` if every entry is one. */
export const paddingMask = (attentionMask: tf.Tensor2D): tf.Tensor4D | undefined => {
  expectAxes('paddingMask', { attentionMask: [attentionMask, 'B L'] })
  return attentionMask.dataSync().every((value) => value !== 0)
    ? undefined
    : tf.tidy(() =>
        attentionMask.toFloat().sub(1).mul(-maskedScore).reshape([attentionMask.shape[0], 1, 1, attentionMask.shape[1]])
      )
}

/** Additive mask `[1, 1, rows, columns]`: row i, at position `from + i`, attends to the last `window` columns up to that position. */
const causalMask = (from: number, rows: number, columns: number, window = Number.POSITIVE_INFINITY): tf.Tensor4D => {
  const position = tf.range(from, from + rows, 1, 'float32').reshape([rows, 1])
  const distance = position.sub(tf.range(0, columns, 1, 'float32').reshape([1, columns]))
  const future = distance.less(0)
  const masked = Number.isFinite(window) ? future.logicalOr(distance.greaterEqual(window)) : future
  return masked.toFloat().mul(maskedScore).reshape([1, 1, rows, columns])
}

/** Additive mask `[B, 1, rows, columns]`: the row at position `from + i` attends to columns of the same segment. */
const segmentMask = (segments: tf.Tensor2D, from: number, rows: number, columns: number): tf.Tensor4D => {
  const B = segments.shape[0]
  const rowSegments = segments.slice([0, from], [B, rows]).reshape([B, 1, rows, 1])
  const columnSegments = segments.slice([0, 0], [B, columns]).reshape([B, 1, 1, columns])
  return rowSegments.notEqual(columnSegments).toFloat().mul(maskedScore)
}

/** Softmax over the last axis of scores `[B, H, Lq, Lk]` with one more column, the head's sink, which is then dropped. */
const softmaxWithSinks = (scores: tf.Tensor4D, sinks: tf.Tensor1D): tf.Tensor4D => {
  const [B, H, Lq, Lk] = scores.shape
  const column = tf.tile(sinks.reshape([1, H, 1, 1]), [B, 1, Lq, 1])
  return tf.softmax(tf.concat([scores, column], 3)).slice([0, 0, 0, 0], [B, H, Lq, Lk]) as tf.Tensor4D
}

/** Attention weights `[B, H, Lq, Lk]` of a block of queries `[B, H, Lq, K]` that starts at query number `offset`. */
const blockWeights = (q: tf.Tensor4D, k: tf.Tensor4D, scale: number, mask: AttentionMaskOptions, offset: number): tf.Tensor4D => {
  const [B, H, Lq, K] = q.shape
  const [G, Lk] = [k.shape[1], k.shape[2]]
  // grouped queries: the H/G heads that share a key become further rows, so that no key or value is copied
  const grouped = q.reshape<tf.Tensor4D>([B, G, (H / G) * Lq, K])
  let scores = tf.matMul(grouped.mul(scale), k, false, true).reshape<tf.Tensor4D>([B, H, Lq, Lk])
  const causal = mask.causalFrom !== undefined && (Lq > 1 || mask.window !== undefined)
  if (causal) scores = scores.add(causalMask(mask.causalFrom! + offset, Lq, Lk, mask.window))
  if (mask.padding) scores = scores.add(mask.padding.slice([0, 0, 0, 0], [mask.padding.shape[0], 1, 1, Lk]))
  if (mask.segments) scores = scores.add(segmentMask(mask.segments, (mask.causalFrom ?? 0) + offset, Lq, Lk))
  return mask.sinks ? softmaxWithSinks(scores, mask.sinks) : tf.softmax(scores)
}

/**
 * Attention weights `softmax(q kᵀ · scale + mask)`, `[B, H, Lq, Lk]`, of queries `[B, H, Lq, K]` and keys `[B, G, Lk, K]`. With sinks, the
 * weights of the keys alone, which then sum to less than 1.
 */
export const attentionWeights = (q: tf.Tensor4D, k: tf.Tensor4D, scale: number, mask: AttentionMaskOptions = {}): tf.Tensor4D =>
  blockWeights(q, k, scale, mask, 0)

/** `weights · v`: weights `[B, H, Lq, Lk]`, values `[B, G, Lk, K]` of grouped heads, result `[B, H, Lq, K]`. */
export const weightedValues = (weights: tf.Tensor4D, v: tf.Tensor4D): tf.Tensor4D => {
  const [[B, H, Lq, Lk], [, G, , K]] = [weights.shape, v.shape]
  return tf.matMul(weights.reshape<tf.Tensor4D>([B, G, (H / G) * Lq, Lk]), v).reshape<tf.Tensor4D>([B, H, Lq, K])
}

/** Attention of a block of queries `[B, H, Lq, K]` that starts at query number `offset`. */
const attendBlock = (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, scale: number, mask: AttentionMaskOptions, offset: number) =>
  weightedValues(blockWeights(q, k, scale, mask, offset), v)

const attendInBlocks = (
  q: tf.Tensor4D,
  k: tf.Tensor4D,
  v: tf.Tensor4D,
  scale: number,
  mask: AttentionMaskOptions = {},
  maxScores = defaultMaxScores
): tf.Tensor4D => {
  const [B, H, Lq, K] = q.shape
  const Lk = k.shape[2]
  const rows = Math.max(1, Math.min(Lq, Math.floor(maxScores / (B * H * Lk))))
  if (rows >= Lq) return attendBlock(q, k, v, scale, mask, 0)
  const blocks = Array.from({ length: Math.ceil(Lq / rows) }, (_, i) => i * rows).map((start) =>
    tf.tidy(() => {
      const size = Math.min(rows, Lq - start)
      const visible = mask.causalFrom === undefined ? Lk : Math.min(Lk, mask.causalFrom + start + size)
      const upTo = (t: tf.Tensor4D) => t.slice([0, 0, 0, 0], [B, t.shape[1], visible, K])
      return attendBlock(q.slice([0, 0, start, 0], [B, H, size, K]), upTo(k), upTo(v), scale, mask, start)
    })
  )
  return tf.concat(blocks, 2)
}

const expectAttention = (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, mask: AttentionMaskOptions): void => {
  const { padding, sinks, segments } = mask
  const { B, H, G, Lq, Lk } = expectAxes('attend', {
    q: [q, 'B H Lq K'],
    k: [k, 'B G Lk K'],
    v: [v, 'B G Lk K'],
    ...(padding ? { padding: [padding, '* 1 1 *'] } : {}),
    ...(sinks ? { sinks: [sinks, 'H'] } : {}),
    ...(segments ? { segments: [segments, 'B *'] } : {})
  }) as Record<'B' | 'H' | 'G' | 'Lq' | 'Lk', number>
  if (H % G !== 0) throw new ShapeError(`attend: ${H} heads of q are not a multiple of ${G} heads of k and v`)
  if (padding && ((padding.shape[0] !== 1 && padding.shape[0] !== B) || padding.shape[3] < Lk))
    throw new ShapeError(`attend: padding: expected [${B}, 1, 1, ${Lk}], got [${padding.shape.join(', ')}]`)
  const from = mask.causalFrom ?? 0
  if (!Number.isSafeInteger(from) || from < 0 || from + Lq > 2 ** 24)
    throw new RangeError(`attend: causalFrom: expected a whole number from 0 to 2^24, got ${valueText(from)}`)
  if (segments && (segments.shape[1] < Lk || segments.shape[1] < from + Lq))
    throw new ShapeError(
      `attend: segments: expected [${B}, ${Math.max(Lk, from + Lq)}] or longer, got [${segments.shape.join(', ')}]`
    )
}

/** Whether the compiled kernels can take segments: they have the positions of a sample side by side. */
const kernelTakesSegments = (segments: tf.Tensor2D): boolean => {
  if (!hasKernel('AttentionBackward')) return false
  const [[B, L], numbers] = [segments.shape, segments.dataSync()]
  for (let b = 0; b < B; b++) {
    const started = new Set<number>()
    for (let i = b * L; i < (b + 1) * L; i++) {
      const isNew = i === b * L || numbers[i] !== numbers[i - 1]
      if (isNew && started.has(numbers[i]!)) return false
      started.add(numbers[i]!)
    }
  }
  return true
}

/**
 * `softmax(q kᵀ · scale + mask) v`: queries `[B, H, Lq, K]`, keys and values `[B, G, Lk, K]` with G dividing H
 * (grouped-query attention), result `[B, H, Lq, K]`. Long inputs are computed in blocks of queries to bound memory: at most `maxScores`
 * scores of `[B, H, Lq, Lk]` at a time, but at least one row. A causal block reads only the keys that it attends to.
 */
export const attend = (
  q: tf.Tensor4D,
  k: tf.Tensor4D,
  v: tf.Tensor4D,
  scale: number,
  mask: AttentionMaskOptions = {},
  maxScores = defaultMaxScores
): tf.Tensor4D => {
  expectAttention(q, k, v, mask)
  const { causalFrom, window, padding, sinks, segments } = mask
  const inputs = { q, k, v, mask: padding, sinks, segments }
  const composition = (t: typeof inputs) =>
    attendInBlocks(t.q, t.k, t.v, scale, { ...mask, padding: t.mask, sinks: t.sinks }, maxScores)
  const causal = causalFrom !== undefined
  if (segments && !(causal && kernelTakesSegments(segments))) return composition(inputs)
  if (causal && causalFrom + q.shape[2] !== k.shape[2]) return composition(inputs) // keys beyond the last query
  return fused('Attention', inputs, { scale, causal, window }, composition)
}

/**
 * Causal `attend` of merged heads from position 0: queries and result `[B, L, H·K]`, keys and values `[B, L, G·K]`. The compiled kernels
 * need no transposed copies.
 */
export const attendMergedCausal = (
  q: tf.Tensor3D,
  k: tf.Tensor3D,
  v: tf.Tensor3D,
  { numHeads, numKeyValueHeads }: { readonly numHeads: number; readonly numKeyValueHeads: number },
  scale: number,
  { window, padding, sinks, segments }: Omit<AttentionMaskOptions, 'causalFrom'> = {}
): tf.Tensor3D => {
  const inputs = { q, k, v, mask: padding, sinks, segments }
  const composition = (t: typeof inputs) => {
    const mask = { causalFrom: 0, window, padding: t.mask, sinks: t.sinks, segments }
    const [keys, values] = [splitHeads(t.k, numKeyValueHeads), splitHeads(t.v, numKeyValueHeads)]
    return mergeHeads(attendInBlocks(splitHeads(t.q, numHeads), keys, values, scale, mask))
  }
  if (segments && !kernelTakesSegments(segments)) return composition(inputs)
  return fused('Attention', inputs, { scale, causal: true, window, numHeads, numKeyValueHeads }, composition)
}

/**
 * Full attention of merged heads: queries, keys, values and result are `[B, L, H·K]`. With `bfloat16` the products may be in bfloat16 with
 * float32 sums, or in integers, where the engine has them and they are faster.
 */
export const attendMerged = (
  q: tf.Tensor3D,
  k: tf.Tensor3D,
  v: tf.Tensor3D,
  heads: number,
  scale: number,
  bfloat16 = false
): tf.Tensor3D => {
  const { D } = expectAxes('attendMerged', { q: [q, 'B Lq D'], k: [k, 'B Lk D'], v: [v, 'B Lk D'] }) as Record<'D', number>
  expectHeads('attendMerged', heads, D)
  return fused('Attention', { q, k, v }, { scale, numHeads: heads, ...(bfloat16 ? { bfloat16 } : {}) }, (t) =>
    mergeHeads(attendInBlocks(splitHeads(t.q, heads), splitHeads(t.k, heads), splitHeads(t.v, heads), scale))
  )
}
