// `softmax(q kᵀ · scale + mask) v`, a few queries at a time: their scores `[queries, Lk]` stay in the caches.
import { exp } from './activation'
import { product } from './product'
import { get, most, put, sum } from './vectors'

const queries: i32 = 32
const never: f32 = -1e30 // finite: of two of them the difference is a number

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
  const scores = (<usize>Lk) << 2
  const own = scratch + <usize>queries * scores // rows of one head lie side by side there: pages apart they push each other out of the cache
  const ownKeys = own + <usize>queries * size
  const turned = ownKeys + <usize>Lk * size
  const start = Lk - Lq
  let last = -1
  for (let i = 0; i < B * H; i++) {
    const b = i / H
    const h = i % H
    const g = h / (H / G)
    const head = merged ? <usize>b * <usize>Lq * qs + <usize>h * size : <usize>i * <usize>Lq * size
    const keys = merged ? <usize>b * <usize>Lk * ks + <usize>g * size : <usize>(b * G + g) * <usize>Lk * size
    const many = Lq >= 4
    if (many && b * G + g !== last) {
      last = b * G + g
      gather(k + keys, ks, ownKeys, Lk, K)
      turn(v + keys, ks, turned, Lk, K)
    }
    const pad = padding ? padding + (paddings > 1 ? <usize>b * scores : 0) : 0
    const sink = sinks ? load<f32>(sinks + ((<usize>h) << 2)) : never
    for (let l = 0; l < Lq; l += queries) {
      const rows = min<i32>(queries, Lq - l)
      const first = causal && window ? max<i32>(0, start + l - window + 1) : 0
      const end = causal ? start + l + rows : Lk
      const span = end - first
      const block = head + <usize>l * qs
      const seen = keys + <usize>first * ks
      gather(q + block, qs, own, rows, K)
      multiply(own, rows * K, scale)
      if (many) product(own, size, ownKeys + <usize>first * size, size, scratch, scores, rows, span, K)
      else product(own, size, k + seen, ks, scratch, scores, rows, span, K)
      for (let r = 0; r < rows; r++) {
        const to = causal ? start + l + r + 1 : Lk
        const from = causal && window ? max<i32>(first, to - window) : first
        const row = scratch + <usize>r * scores
        soften(row, pad ? pad + ((<usize>first) << 2) : 0, sink, from - first, to - first, span)
        if (!many) mix(row, v + seen, ks, out + block + <usize>r * qs, span, K)
      }
      if (many) product(scratch, scores, turned + ((<usize>first) << 2), scores, out + block, qs, rows, K, span)
    }
  }
}
