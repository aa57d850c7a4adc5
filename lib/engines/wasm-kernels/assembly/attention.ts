// `softmax(q kᵀ · scale + mask) v`, a few queries at a time: their scores `[queries, Lk]` stay in the caches.
import { exp } from './activation'
import { product } from './product'
import { get, put, sum } from './vectors'

const queries: i32 = 32
const never: f32 = -1e30 // finite: of two of them the difference is a number

/** Entries of scratch memory that `attention` wants: scores of a block, and the values of a head, turned. */
export function attentionScratch(Lk: i32, K: i32): i32 {
  return (queries + K) * Lk
}

/** Scores of keys `[from, to)` of one row to weights that add up to 1; keys that it does not see, up to `end`, get 0. */
function soften(row: usize, padding: usize, scale: f32, sink: f32, from: i32, to: i32, end: i32): void {
  const n = to - from
  const scores = row + ((<usize>from) << 2)
  let most = sink
  for (let j = 0; j < n; j++) {
    const at = (<usize>j) << 2
    const score = load<f32>(scores + at) * scale + (padding ? load<f32>(padding + ((<usize>from) << 2) + at) : 0)
    store<f32>(scores + at, score)
    most = score > most ? score : most
  }
  const top = f32x4.splat(most)
  let total: f32 = sink === never ? 0 : f32x4.extract_lane(exp(f32x4.splat(sink - most)), 0)
  for (let j = 0; j < n; j += 4)
    put(scores + ((<usize>j) << 2), exp(f32x4.sub(get(scores + ((<usize>j) << 2), n - j), top)), n - j)
  let sums = f32x4.splat(0)
  for (let j = 0; j < n; j += 4) sums = f32x4.add(sums, get(scores + ((<usize>j) << 2), n - j))
  total += sum(sums)
  const share = f32x4.splat(1 / total)
  for (let j = 0; j < n; j += 4) put(scores + ((<usize>j) << 2), f32x4.mul(get(scores + ((<usize>j) << 2), n - j), share), n - j)
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
  const turned = scratch + <usize>queries * scores
  const start = Lk - Lq
  let last = -1
  for (let i = 0; i < B * H; i++) {
    const b = i / H
    const h = i % H
    const g = h / (H / G)
    const head = merged ? <usize>b * <usize>Lq * qs + <usize>h * size : <usize>i * <usize>Lq * size
    const keys = merged ? <usize>b * <usize>Lk * ks + <usize>g * size : <usize>(b * G + g) * <usize>Lk * size
    if (Lq >= 4 && b * G + g !== last) {
      last = b * G + g
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
      product(q + block, qs, k + seen, ks, scratch, scores, rows, span, K)
      for (let r = 0; r < rows; r++) {
        const to = causal ? start + l + r + 1 : Lk
        const from = causal && window ? max<i32>(first, to - window) : first
        const row = scratch + <usize>r * scores
        soften(row, pad ? pad + ((<usize>first) << 2) : 0, scale, sink, from - first, to - first, span)
        if (Lq < 4) mix(row, v + seen, ks, out + block + <usize>r * qs, span, K)
      }
      if (Lq >= 4) product(scratch, scores, turned + ((<usize>first) << 2), scores, out + block, qs, rows, K, span)
    }
  }
}
