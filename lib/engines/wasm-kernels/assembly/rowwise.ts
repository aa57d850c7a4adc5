// Operations on rows of the last axis: linear layers, norms, residuals, gated activations, rotary position embeddings.
import { activate } from './activation'
import { gemm } from './gemm'
import { load4, store4, sumLanes } from './simd'

/** `act(x wᵀ + b)`: x `[M, K]`, w `[N, K]`, y `[M, N]`; b `[N]`, or address 0 for no bias. */
export function affine(x: usize, w: usize, b: usize, y: usize, M: i32, N: i32, K: i32, kind: i32): void {
  gemm(x, (<usize>K) << 2, w, (<usize>K) << 2, y, (<usize>N) << 2, M, N, K)
  if (b === 0) {
    if (kind) activation(y, y, M * N, kind)
    return
  }
  for (let m = 0; m < M; m++, y += (<usize>N) << 2)
    for (let n = 0; n < N; n += 4) {
      const at = (<usize>n) << 2
      store4(y + at, activate(kind, f32x4.add(load4(y + at, N - n), load4(b + at, N - n))), N - n)
    }
}

/** `act(x)` of n entries. */
export function activation(x: usize, y: usize, n: i32, kind: i32): void {
  for (let i = 0; i < n; i += 4) store4(y + ((<usize>i) << 2), activate(kind, load4(x + ((<usize>i) << 2), n - i)), n - i)
}

/** `act(gate) ⊙ up` of n entries. */
export function gated(gate: usize, up: usize, y: usize, n: i32, kind: i32): void {
  for (let i = 0; i < n; i += 4) {
    const at = (<usize>i) << 2
    store4(y + at, f32x4.mul(activate(kind, load4(gate + at, n - i)), load4(up + at, n - i)), n - i)
  }
}

/** `x + scale ⊙ branch`: x and branch `[M, D]`, scale `[D]`. */
export function residual(x: usize, branch: usize, scale: usize, y: usize, M: i32, D: i32): void {
  for (let m = 0; m < M; m++) {
    for (let i = 0; i < D; i += 4) {
      const at = (<usize>i) << 2
      store4(y + at, f32x4.add(load4(x + at, D - i), f32x4.mul(load4(scale + at, D - i), load4(branch + at, D - i))), D - i)
    }
    x += (<usize>D) << 2
    branch += (<usize>D) << 2
    y += (<usize>D) << 2
  }
}

/** `Σ (x − mean)²` of D entries. */
function sumOfSquares(x: usize, D: i32, mean: f32): f32 {
  const center = f32x4.splat(mean)
  let total = f32x4.splat(0)
  for (let i = 0; i + 4 <= D; i += 4) {
    const c = f32x4.sub(v128.load(x + ((<usize>i) << 2)), center)
    total = f32x4.add(total, f32x4.mul(c, c))
  }
  let rest: f32 = 0
  for (let i = D & ~3; i < D; i++) {
    const c = load<f32>(x + ((<usize>i) << 2)) - mean
    rest += c * c
  }
  return sumLanes(total) + rest
}

/** `(x − mean) · scale · weight + bias` of D entries; address 0 for no bias. */
function normalizeRow(x: usize, weight: usize, bias: usize, y: usize, D: i32, mean: f32, scale: f32): void {
  for (let i = 0; i < D; i += 4) {
    const at = (<usize>i) << 2
    const normalized = f32x4.mul(f32x4.sub(load4(x + at, D - i), f32x4.splat(mean)), f32x4.splat(scale))
    const weighted = f32x4.mul(normalized, load4(weight + at, D - i))
    store4(y + at, bias ? f32x4.add(weighted, load4(bias + at, D - i)) : weighted, D - i)
  }
}

/** Layer normalization of M rows of D entries. */
export function layerNorm(x: usize, weight: usize, bias: usize, y: usize, M: i32, D: i32, eps: f32): void {
  for (let m = 0; m < M; m++, x += (<usize>D) << 2, y += (<usize>D) << 2) {
    let total = f32x4.splat(0)
    for (let i = 0; i < D; i += 4) total = f32x4.add(total, load4(x + ((<usize>i) << 2), D - i))
    const mean = sumLanes(total) / <f32>D
    normalizeRow(x, weight, bias, y, D, mean, 1 / sqrt<f32>(sumOfSquares(x, D, mean) / <f32>D + eps))
  }
}

/** RMS normalization of M rows of D entries. */
export function rmsNorm(x: usize, weight: usize, y: usize, M: i32, D: i32, eps: f32): void {
  for (let m = 0; m < M; m++, x += (<usize>D) << 2, y += (<usize>D) << 2)
    normalizeRow(x, weight, 0, y, D, 0, 1 / sqrt<f32>(sumOfSquares(x, D, 0) / <f32>D + eps))
}

/** Rotates entry i of a head with entry i + R/2: x and y `[B, H, L, K]`, cos and sin `[tables, L, R]`, `tables` 1 or B. */
export function rope(x: usize, cos: usize, sin: usize, y: usize, B: i32, H: i32, L: i32, K: i32, R: i32, tables: i32): void {
  const half = R >> 1
  const h = (<usize>half) << 2
  for (let i = 0; i < B * H * L; i++, x += (<usize>K) << 2, y += (<usize>K) << 2) {
    const from = (<usize>((tables === 1 ? 0 : i / L / H) * L + (i % L)) * <usize>R) << 2
    for (let j = 0; j < half; j += 4) {
      const at = (<usize>j) << 2
      const remaining = half - j
      const angle = from + at
      const a = load4(x + at, remaining)
      const b = load4(x + h + at, remaining)
      store4(
        y + at,
        f32x4.sub(f32x4.mul(a, load4(cos + angle, remaining)), f32x4.mul(b, load4(sin + angle, remaining))),
        remaining
      )
      store4(
        y + h + at,
        f32x4.add(f32x4.mul(b, load4(cos + h + angle, remaining)), f32x4.mul(a, load4(sin + h + angle, remaining))),
        remaining
      )
    }
    memory.copy(y + ((<usize>R) << 2), x + ((<usize>R) << 2), (<usize>(K - R)) << 2)
  }
}
