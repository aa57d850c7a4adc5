// `softmax(q kᵀ · scale + mask) v`, a few queries at a time: their scores `[queries, Lk]` stay in the caches.
import { exp } from './activation'
import { product } from './product'
import { get, most, put, sum } from './vectors'

const queries: i32 = 32
const never: f32 = -1e30 // finite: of two of them the difference is a number

/** Whether keys and values of a head are worth a copy in the order in which they are read. */
function many(Lq: i32): bool {
  return Lq >= 4
}

/** Entries of scratch memory that `attention` wants: a block's queries and scores, a head's keys, and its values turned. */
export function attentionScratch(Lk: i32, K: i32): i32 {
  return queries * (K + Lk) + 2 * Lk * K
}

/** Scores of keys `[from, to)` of one row to weights that add up to 1; keys that it does not see, up to `end`, get 0. */
function soften(row: usize, padding: usize, sink: f32, from: i32, to: i32, end: i32): void {
  const n = to - from
  const scores = row + ((<usize>from) << 2)
  let top = f32x4.splat(sink)
  if (padding) {
    padding += (<usize>from) << 2
    for (let j = 0; j < n; j += 4) {
      const at = (<usize>j) << 2
      put(scores + at, f32x4.add(get(scores + at, n - j), get(padding + at, n - j)), n - j)
    }
  }
  for (let j = 0; j + 4 <= n; j += 4) top = f32x4.pmax(top, v128.load(scores + ((<usize>j) << 2)))
  for (let j = n & ~3; j < n; j++) top = f32x4.pmax(top, v128.load32_splat(scores + ((<usize>j) << 2)))
  top = most(top)
  let total = f32x4.splat(0)
  for (let j = 0; j < n; j += 4) {
    const at = scores + ((<usize>j) << 2)
    put(at, exp(f32x4.sub(get(at, n - j), top)), n - j)
    total = f32x4.add(total, get(at, n - j))
  }
  const ofSink = exp(f32x4.sub(f32x4.splat(sink), top)) // 0 where there is none
  multiply(scores, n, 1 / (sum(total) + f32x4.extract_lane(ofSink, 0)))
  memory.fill(row, 0, (<usize>from) << 2)
  memory.fill(row + ((<usize>to) << 2), 0, (<usize>(end - to)) << 2)
}

/** `out = weights · v` for one query: v `[n, K]` read as it lies. */
function mix(weights: usize, v: usize, vs: usize, out: usize, n: i32, K: i32): void {
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
      a = f32x4.add(a, f32x4.mul(weight, get(v + <usize>j * vs + ((<usize>i) << 2), K - i)))
    }
    put(out + ((<usize>i) << 2), a, K - i)
  }
}

/** n entries times a factor, in place. */
function multiply(x: usize, n: i32, factor: f32): void {
  for (let i = 0; i < n; i += 4) {
    const at = x + ((<usize>i) << 2)
    put(at, f32x4.mul(get(at, n - i), f32x4.splat(factor)), n - i)
  }
}

/** Rows that lie apart, `[n, K]`, side by side. */
function gather(x: usize, xs: usize, to: usize, n: i32, K: i32): void {
  const size = (<usize>K) << 2
  for (let j = 0; j < n; j++, x += xs, to += size) memory.copy(to, x, size)
}

/** v `[Lk, K]` to `[K, Lk]`. */
function turn(v: usize, vs: usize, turned: usize, Lk: i32, K: i32): void {
  for (let d = 0; d < K; d++)
    for (let j = 0; j < Lk; j++, turned += 4) store<f32>(turned, load<f32>(v + <usize>j * vs + ((<usize>d) << 2)))
}

/**
 * One head: q and out `[Lq, K]`, k and v `[Lk, K]`, rows `qs` and `ks` bytes apart. Where queries are `many`, `own` holds the
 * head's keys and turned values.
 */
function attendHead(
  q: usize,
  k: usize,
  v: usize,
  out: usize,
  qs: usize,
  ks: usize,
  scratch: usize,
  own: usize,
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
  const block = scratch + <usize>queries * scores
  const start = Lk - Lq
  for (let l = 0; l < Lq; l += queries, q += <usize>queries * qs, out += <usize>queries * qs) {
    const rows = min<i32>(queries, Lq - l)
    const first = causal && window ? max<i32>(0, start + l - window + 1) : 0
    const span = (causal ? start + l + rows : Lk) - first
    const from = (<usize>first) << 2
    gather(q, qs, block, rows, K)
    multiply(block, rows * K, scale)
    if (many(Lq)) product(block, size, own + <usize>first * size, size, scratch, scores, rows, span, K)
    else product(block, size, k + <usize>first * ks, ks, scratch, scores, rows, span, K)
    for (let r = 0; r < rows; r++) {
      const row = scratch + <usize>r * scores
      const seen = causal ? start + l + r + 1 : Lk
      const unseen = causal && window ? max<i32>(first, seen - window) : first
      soften(row, padding ? padding + from : 0, sink, unseen - first, seen - first, span)
      if (!many(Lq)) mix(row, v + <usize>first * ks, ks, out + <usize>r * qs, span, K)
    }
    if (many(Lq)) product(scratch, scores, own + <usize>Lk * size + from, scores, out, qs, rows, K, span)
  }
}

/**
 * q and out `[B, H, Lq, K]`, k and v `[B, G, Lk, K]`, or where `merged` `[B, L, heads · K]`. `padding` `[Lk]`, or `[B, Lk]` with
 * `paddings` B, or 0; `sinks` `[H]` or 0. Causal: the last query stands at the last key; `window` 0 for none.
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
  const own = scratch + ((<usize>queries * <usize>(Lk + K)) << 2)
  let held = -1
  for (let i = 0; i < B * H; i++) {
    const b = i / H
    const group = b * G + (i % H) / (H / G)
    const head = merged ? <usize>b * <usize>Lq * qs + <usize>(i % H) * size : <usize>i * <usize>Lq * size
    const keys = merged ? <usize>b * <usize>Lk * ks + <usize>(group % G) * size : <usize>group * <usize>Lk * size
    if (many(Lq) && group !== held) {
      // side by side, for rows that lie pages apart push each other out of the first cache
      gather(k + keys, ks, own, Lk, K)
      turn(v + keys, ks, own + <usize>Lk * size, Lk, K)
      held = group
    }
    const pad = padding && paddings > 1 ? padding + ((<usize>b * <usize>Lk) << 2) : padding
    const sink = sinks ? load<f32>(sinks + ((<usize>(i % H)) << 2)) : never
    attendHead(q + head, k + keys, v + keys, out + head, qs, ks, scratch, own, Lq, Lk, K, pad, sink, causal, window, scale)
  }
}
