// `softmax(q kᵀ · scale + mask) v` in blocks of queries: the scores of a block, `[blockQueries, Lk]`, stay in the processor's caches.
import { exp } from './activation'
import { gemm } from './gemm'
import { load4, maxLanes, store4, sumLanes } from './simd'

const blockQueries: i32 = 32
const masked: f32 = -1e30 // finite, because the difference of two infinities is NaN

/** Whether the keys and values of a head are copied to scratch memory first: worth the time from four queries on. */
function usesCopies(Lq: i32): bool {
  return Lq >= 4
}

/** Entries of scratch memory of `attention`: queries and scores of a block, and keys and transposed values of a head. */
export function attentionScratch(Lk: i32, K: i32): i32 {
  return blockQueries * (K + Lk) + 2 * Lk * K
}

/** Softmax in place over scores `[from, to)` of one row, with the attention sink in the denominator; the other weights up to `end` are 0. */
function softmaxInPlace(row: usize, padding: usize, sink: f32, from: i32, to: i32, end: i32): void {
  const n = to - from
  const scores = row + ((<usize>from) << 2)
  let top = f32x4.splat(sink)
  if (padding) {
    padding += (<usize>from) << 2
    for (let j = 0; j < n; j += 4) {
      const at = (<usize>j) << 2
      store4(scores + at, f32x4.add(load4(scores + at, n - j), load4(padding + at, n - j)), n - j)
    }
  }
  for (let j = 0; j + 4 <= n; j += 4) top = f32x4.pmax(top, v128.load(scores + ((<usize>j) << 2)))
  for (let j = n & ~3; j < n; j++) top = f32x4.pmax(top, v128.load32_splat(scores + ((<usize>j) << 2)))
  top = maxLanes(top)
  let total = f32x4.splat(0)
  for (let j = 0; j < n; j += 4) {
    const at = scores + ((<usize>j) << 2)
    store4(at, exp(f32x4.sub(load4(at, n - j), top)), n - j)
    total = f32x4.add(total, load4(at, n - j))
  }
  const sinkWeight = exp(f32x4.sub(f32x4.splat(sink), top)) // 0 without a sink
  scaleInPlace(scores, n, 1 / (sumLanes(total) + f32x4.extract_lane(sinkWeight, 0)))
  memory.fill(row, 0, (<usize>from) << 2)
  memory.fill(row + ((<usize>to) << 2), 0, (<usize>(end - to)) << 2)
}

/** `out = weights · v` for one query; v `[n, K]`, rows `vs` bytes apart. */
function weightedSum(weights: usize, v: usize, vs: usize, out: usize, n: i32, K: i32): void {
  let i = 0
  for (; i + 16 <= K; i += 16) {
    let a = f32x4.splat(0)
    let b = a
    let c = a
    let d = a
    let p = v + ((<usize>i) << 2)
    for (let j = 0; j < n; j++, p += vs) {
      const weight = v128.load32_splat(weights + ((<usize>j) << 2))
      a = f32x4.add(a, f32x4.mul(weight, v128.load(p)))
      b = f32x4.add(b, f32x4.mul(weight, v128.load(p, 16)))
      c = f32x4.add(c, f32x4.mul(weight, v128.load(p, 32)))
      d = f32x4.add(d, f32x4.mul(weight, v128.load(p, 48)))
    }
    const y = out + ((<usize>i) << 2)
    v128.store(y, a)
    v128.store(y, b, 16)
    v128.store(y, c, 32)
    v128.store(y, d, 48)
  }
  for (; i < K; i += 4) {
    let a = f32x4.splat(0)
    for (let j = 0; j < n; j++) {
      const weight = v128.load32_splat(weights + ((<usize>j) << 2))
      a = f32x4.add(a, f32x4.mul(weight, load4(v + <usize>j * vs + ((<usize>i) << 2), K - i)))
    }
    store4(out + ((<usize>i) << 2), a, K - i)
  }
}

/** Multiplies n entries by a factor, in place. */
function scaleInPlace(x: usize, n: i32, factor: f32): void {
  for (let i = 0; i < n; i += 4) {
    const at = x + ((<usize>i) << 2)
    store4(at, f32x4.mul(load4(at, n - i), f32x4.splat(factor)), n - i)
  }
}

/** Copies n rows of K entries, `xs` bytes apart, to adjacent rows. */
function copyRows(x: usize, xs: usize, to: usize, n: i32, K: i32): void {
  const size = (<usize>K) << 2
  for (let j = 0; j < n; j++, x += xs, to += size) memory.copy(to, x, size)
}

/** Transposes v `[Lk, K]` to `[K, Lk]`. */
function transpose(v: usize, vs: usize, transposed: usize, Lk: i32, K: i32): void {
  for (let d = 0; d < K; d++)
    for (let j = 0; j < Lk; j++, transposed += 4) store<f32>(transposed, load<f32>(v + <usize>j * vs + ((<usize>d) << 2)))
}

/**
 * Attention of one head: q and out `[Lq, K]`, k and v `[Lk, K]`, rows `qs` and `ks` bytes apart. With `usesCopies`, `copies` holds
 * the head's keys and transposed values.
 */
function attendHead(
  q: usize,
  k: usize,
  v: usize,
  out: usize,
  qs: usize,
  ks: usize,
  scratch: usize,
  copies: usize,
  Lq: i32,
  Lk: i32,
  K: i32,
  padding: usize,
  sink: f32,
  causal: i32,
  window: i32,
  scale: f32
): void {
  const size = (<usize>K) << 2
  const scores = (<usize>Lk) << 2
  const block = scratch + <usize>blockQueries * scores
  const start = Lk - Lq
  for (let l = 0; l < Lq; l += blockQueries, q += <usize>blockQueries * qs, out += <usize>blockQueries * qs) {
    const rows = min<i32>(blockQueries, Lq - l)
    const first = causal && window ? max<i32>(0, start + l - window + 1) : 0
    const span = (causal ? start + l + rows : Lk) - first
    const from = (<usize>first) << 2
    copyRows(q, qs, block, rows, K)
    scaleInPlace(block, rows * K, scale)
    if (usesCopies(Lq)) gemm(block, size, copies + <usize>first * size, size, scratch, scores, rows, span, K)
    else gemm(block, size, k + <usize>first * ks, ks, scratch, scores, rows, span, K)
    for (let r = 0; r < rows; r++) {
      const row = scratch + <usize>r * scores
      const visibleEnd = causal ? start + l + r + 1 : Lk
      const visibleStart = causal && window ? max<i32>(first, visibleEnd - window) : first
      softmaxInPlace(row, padding ? padding + from : 0, sink, visibleStart - first, visibleEnd - first, span)
      if (!usesCopies(Lq)) weightedSum(row, v + <usize>first * ks, ks, out + <usize>r * qs, span, K)
    }
    if (usesCopies(Lq)) gemm(scratch, scores, copies + <usize>Lk * size + from, scores, out, qs, rows, K, span)
  }
}

/**
 * q and out `[B, H, Lq, K]`, k and v `[B, G, Lk, K]`, or where `merged` `[B, L, heads · K]`. `padding` is
 * `[Lk]`, `[B, Lk]` with `paddings` = B, or address 0 for none; `sinks` `[H]` or 0. Causal: the last query is at the position of the
 * last key. `window` 0: no sliding window.
 */
export function attention(
  q: usize,
  k: usize,
  v: usize,
  padding: usize,
  sinks: usize,
  out: usize,
  scratch: usize,
  B: i32,
  H: i32,
  G: i32,
  Lq: i32,
  Lk: i32,
  K: i32,
  merged: i32,
  paddings: i32,
  causal: i32,
  window: i32,
  scale: f32
): void {
  const size = (<usize>K) << 2
  const qs = merged ? size * <usize>H : size // bytes from one position to the next
  const ks = merged ? size * <usize>G : size
  const copies = scratch + ((<usize>blockQueries * <usize>(Lk + K)) << 2)
  let copiedGroup = -1
  for (let i = 0; i < B * H; i++) {
    const b = i / H
    const group = b * G + (i % H) / (H / G)
    const head = merged ? <usize>b * <usize>Lq * qs + <usize>(i % H) * size : <usize>i * <usize>Lq * size
    const keys = merged ? <usize>b * <usize>Lk * ks + <usize>(group % G) * size : <usize>group * <usize>Lk * size
    if (usesCopies(Lq) && group !== copiedGroup) {
      // rows that are pages apart evict each other from the first-level cache; adjacent rows do not
      copyRows(k + keys, ks, copies, Lk, K)
      transpose(v + keys, ks, copies + <usize>Lk * size, Lk, K)
      copiedGroup = group
    }
    const pad = padding && paddings > 1 ? padding + ((<usize>b * <usize>Lk) << 2) : padding
    const sink = sinks ? load<f32>(sinks + ((<usize>(i % H)) << 2)) : masked
    attendHead(q + head, k + keys, v + keys, out + head, qs, ks, scratch, copies, Lq, Lk, K, pad, sink, causal, window, scale)
  }
}
