// The matrix product (GEMM) of linear layers and attention. Both factors are read along the summed axis without packing; a tile of
// 4 x 2 accumulators stays in registers (x86 has 16).
import { load4, sumEach, sumLanes } from './simd'

/** Entries of x that stay in the second-level cache while all rows of w are read. */
const cachedEntries: i32 = 128 * 1024

/** Microkernel: `y[r][c] = Σₚ x[r][p] w[c][p]` for 4 rows and 2 columns. */
function tile(x: usize, xs: usize, w: usize, ws: usize, y: usize, ys: usize, K: i32): void {
  const x1 = x + xs
  const x2 = x1 + xs
  const x3 = x2 + xs
  const w1 = w + ws
  let a0 = f32x4.splat(0)
  let a1 = a0
  let a2 = a0
  let a3 = a0
  let b0 = a0
  let b1 = a0
  let b2 = a0
  let b3 = a0
  const vectorBytes = (<usize>K & ~3) << 2
  for (let p: usize = 0; p < vectorBytes; p += 16) {
    const c0 = v128.load(w + p)
    const c1 = v128.load(w1 + p)
    let r = v128.load(x + p)
    a0 = f32x4.add(a0, f32x4.mul(r, c0))
    b0 = f32x4.add(b0, f32x4.mul(r, c1))
    r = v128.load(x1 + p)
    a1 = f32x4.add(a1, f32x4.mul(r, c0))
    b1 = f32x4.add(b1, f32x4.mul(r, c1))
    r = v128.load(x2 + p)
    a2 = f32x4.add(a2, f32x4.mul(r, c0))
    b2 = f32x4.add(b2, f32x4.mul(r, c1))
    r = v128.load(x3 + p)
    a3 = f32x4.add(a3, f32x4.mul(r, c0))
    b3 = f32x4.add(b3, f32x4.mul(r, c1))
  }
  const remaining = K & 3
  if (remaining) {
    const c0 = load4(w + vectorBytes, remaining)
    const c1 = load4(w1 + vectorBytes, remaining)
    let r = load4(x + vectorBytes, remaining)
    a0 = f32x4.add(a0, f32x4.mul(r, c0))
    b0 = f32x4.add(b0, f32x4.mul(r, c1))
    r = load4(x1 + vectorBytes, remaining)
    a1 = f32x4.add(a1, f32x4.mul(r, c0))
    b1 = f32x4.add(b1, f32x4.mul(r, c1))
    r = load4(x2 + vectorBytes, remaining)
    a2 = f32x4.add(a2, f32x4.mul(r, c0))
    b2 = f32x4.add(b2, f32x4.mul(r, c1))
    r = load4(x3 + vectorBytes, remaining)
    a3 = f32x4.add(a3, f32x4.mul(r, c0))
    b3 = f32x4.add(b3, f32x4.mul(r, c1))
  }
  const top = sumEach(a0, b0, a1, b1)
  const bottom = sumEach(a2, b2, a3, b3)
  v128.store64_lane(y, top, 0)
  v128.store64_lane(y + ys, top, 1)
  v128.store64_lane(y + 2 * ys, bottom, 0)
  v128.store64_lane(y + 3 * ys, bottom, 1)
}

/** Microkernel for 1 row and 4 columns. */
function row(x: usize, w: usize, ws: usize, y: usize, K: i32): void {
  const w1 = w + ws
  const w2 = w1 + ws
  const w3 = w2 + ws
  let a = f32x4.splat(0)
  let b = a
  let c = a
  let d = a
  const vectorBytes = (<usize>K & ~3) << 2
  for (let p: usize = 0; p < vectorBytes; p += 16) {
    const r = v128.load(x + p)
    a = f32x4.add(a, f32x4.mul(r, v128.load(w + p)))
    b = f32x4.add(b, f32x4.mul(r, v128.load(w1 + p)))
    c = f32x4.add(c, f32x4.mul(r, v128.load(w2 + p)))
    d = f32x4.add(d, f32x4.mul(r, v128.load(w3 + p)))
  }
  const remaining = K & 3
  if (remaining) {
    const r = load4(x + vectorBytes, remaining)
    a = f32x4.add(a, f32x4.mul(r, load4(w + vectorBytes, remaining)))
    b = f32x4.add(b, f32x4.mul(r, load4(w1 + vectorBytes, remaining)))
    c = f32x4.add(c, f32x4.mul(r, load4(w2 + vectorBytes, remaining)))
    d = f32x4.add(d, f32x4.mul(r, load4(w3 + vectorBytes, remaining)))
  }
  v128.store(y, sumEach(a, b, c, d))
}

/** One row, one column. */
function dot(x: usize, w: usize, K: i32): f32 {
  let a = f32x4.splat(0)
  for (let p = 0; p < K; p += 4)
    a = f32x4.add(a, f32x4.mul(load4(x + ((<usize>p) << 2), K - p), load4(w + ((<usize>p) << 2), K - p)))
  return sumLanes(a)
}

/** `y = x wᵀ`: x `[M, K]`, w `[N, K]`, y `[M, N]`; rows are `xs`, `ws` and `ys` bytes apart. */
export function gemm(x: usize, xs: usize, w: usize, ws: usize, y: usize, ys: usize, M: i32, N: i32, K: i32): void {
  const block = max<i32>(4, (cachedEntries / max<i32>(1, K)) & ~3)
  for (let from = 0; from < M; from += block) {
    const to = min<i32>(M, from + block)
    const fullTiles = from + ((to - from) & ~3)
    for (let n = 0; n < N; n += 4) {
      const pw = w + <usize>n * ws
      const py = y + ((<usize>n) << 2)
      const columns = min<i32>(4, N - n)
      const tileColumns = columns & ~1
      for (let m = from; m < fullTiles; m += 4)
        for (let j = 0; j < tileColumns; j += 2)
          tile(x + <usize>m * xs, xs, pw + <usize>j * ws, ws, py + <usize>m * ys + ((<usize>j) << 2), ys, K)
      for (let m = from; m < to; m++) {
        const px = x + <usize>m * xs
        const out = py + <usize>m * ys
        if (m >= fullTiles && columns === 4) row(px, pw, ws, out, K)
        else
          for (let j = m < fullTiles ? tileColumns : 0; j < columns; j++)
            store<f32>(out + ((<usize>j) << 2), dot(px, pw + <usize>j * ws, K))
      }
    }
  }
}
