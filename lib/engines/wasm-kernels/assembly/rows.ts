// What goes row by row over the last axis: affine layers, norms, residuals, gates, rotary positions.
import { activate } from './activation'
import { product } from './product'
import { get, put, sum } from './vectors'

/** `act(x wᵀ + b)`: x `[M, K]`, w `[N, K]`, y `[M, N]`; b `[N]`, or 0 for none. */
export function affine(x: usize, w: usize, b: usize, y: usize, M: i32, N: i32, K: i32, kind: i32): void {
  product(x, (<usize>K) << 2, w, (<usize>K) << 2, y, (<usize>N) << 2, M, N, K)
  if (b === 0) {
    if (kind) activation(y, y, M * N, kind)
    return
  }
  for (let m = 0; m < M; m++, y += (<usize>N) << 2)
    for (let n = 0; n < N; n += 4) {
      const at = (<usize>n) << 2
      put(y + at, activate(kind, f32x4.add(get(y + at, N - n), get(b + at, N - n))), N - n)
    }
}

/** `act(x)` of n entries. */
export function activation(x: usize, y: usize, n: i32, kind: i32): void {
  for (let i = 0; i < n; i += 4) put(y + ((<usize>i) << 2), activate(kind, get(x + ((<usize>i) << 2), n - i)), n - i)
}

/** `act(gate) ⊙ up` of n entries. */
export function gated(gate: usize, up: usize, y: usize, n: i32, kind: i32): void {
  for (let i = 0; i < n; i += 4) {
    const at = (<usize>i) << 2
    put(y + at, f32x4.mul(activate(kind, get(gate + at, n - i)), get(up + at, n - i)), n - i)
  }
}

/** `x + scale ⊙ branch`, M rows of D. */
export function residual(x: usize, branch: usize, scale: usize, y: usize, M: i32, D: i32): void {
  for (let m = 0; m < M; m++) {
    for (let i = 0; i < D; i += 4) {
      const at = (<usize>i) << 2
      put(y + at, f32x4.add(get(x + at, D - i), f32x4.mul(get(scale + at, D - i), get(branch + at, D - i))), D - i)
    }
    x += (<usize>D) << 2
    branch += (<usize>D) << 2
    y += (<usize>D) << 2
  }
}

/** `Σ (x − mean)²` of D entries. */
function squares(x: usize, D: i32, mean: f32): f32 {
  const centre = f32x4.splat(mean)
  let total = f32x4.splat(0)
  for (let i = 0; i + 4 <= D; i += 4) {
    const c = f32x4.sub(v128.load(x + ((<usize>i) << 2)), centre)
    total = f32x4.add(total, f32x4.mul(c, c))
  }
  let rest: f32 = 0
  for (let i = D & ~3; i < D; i++) {
    const c = load<f32>(x + ((<usize>i) << 2)) - mean
    rest += c * c
  }
  return sum(total) + rest
}

/** `(x − mean) · scale · weight + bias`, D entries; bias 0 for none. */
function scaled(x: usize, weight: usize, bias: usize, y: usize, D: i32, mean: f32, scale: f32): void {
  for (let i = 0; i < D; i += 4) {
    const at = (<usize>i) << 2
    const unit = f32x4.mul(f32x4.sub(get(x + at, D - i), f32x4.splat(mean)), f32x4.splat(scale))
    const weighted = f32x4.mul(unit, get(weight + at, D - i))
    put(y + at, bias ? f32x4.add(weighted, get(bias + at, D - i)) : weighted, D - i)
  }
}

export function layerNorm(x: usize, weight: usize, bias: usize, y: usize, M: i32, D: i32, eps: f32): void {
  for (let m = 0; m < M; m++, x += (<usize>D) << 2, y += (<usize>D) << 2) {
    let total = f32x4.splat(0)
    for (let i = 0; i < D; i += 4) total = f32x4.add(total, get(x + ((<usize>i) << 2), D - i))
    const mean = sum(total) / <f32>D
    scaled(x, weight, bias, y, D, mean, 1 / sqrt<f32>(squares(x, D, mean) / <f32>D + eps))
  }
}

export function rmsNorm(x: usize, weight: usize, y: usize, M: i32, D: i32, eps: f32): void {
  for (let m = 0; m < M; m++, x += (<usize>D) << 2, y += (<usize>D) << 2)
    scaled(x, weight, 0, y, D, 0, 1 / sqrt<f32>(squares(x, D, 0) / <f32>D + eps))
}

/** Turns entry i of a head with entry i + R/2: x and y `[B, H, L, K]`, cos and sin `[L, R]`, `tables` 1, or `[B, L, R]`, B. */
export function rope(x: usize, cos: usize, sin: usize, y: usize, B: i32, H: i32, L: i32, K: i32, R: i32, tables: i32): void {
  const half = R >> 1
  const h = (<usize>half) << 2
  for (let i = 0; i < B * H * L; i++, x += (<usize>K) << 2, y += (<usize>K) << 2) {
    const from = (<usize>((tables === 1 ? 0 : i / L / H) * L + (i % L)) * <usize>R) << 2
    for (let j = 0; j < half; j += 4) {
      const at = (<usize>j) << 2
      const left = half - j
      const angle = from + at
      const a = get(x + at, left)
      const b = get(x + h + at, left)
      put(y + at, f32x4.sub(f32x4.mul(a, get(cos + angle, left)), f32x4.mul(b, get(sin + angle, left))), left)
      put(y + h + at, f32x4.add(f32x4.mul(b, get(cos + h + angle, left)), f32x4.mul(a, get(sin + h + angle, left))), left)
    }
    memory.copy(y + ((<usize>R) << 2), x + ((<usize>R) << 2), (<usize>(K - R)) << 2)
  }
}
