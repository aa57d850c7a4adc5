// Activation functions of four entries, by their number in `activationNumber` of ../../kernels/register.ts. The C++ kernels use the same formulas.

/** `a · b + c`. */
function fma(a: v128, b: v128, c: f32): v128 {
  return f32x4.add(f32x4.mul(a, b), f32x4.splat(c))
}

/** `eˣ` within 2 ulp; 0 below −87, bounded above 88, NaN for NaN. Source: Cephes `expf`. */
export function exp(x: v128): v128 {
  const bounded = f32x4.pmax(f32x4.pmin(x, f32x4.splat(88)), f32x4.splat(-87)) // `pmin` and `pmax` return a NaN first argument
  const n = f32x4.nearest(f32x4.mul(bounded, f32x4.splat(Mathf.LOG2E)))
  const t = f32x4.add(f32x4.sub(bounded, f32x4.mul(n, f32x4.splat(0.693359375))), f32x4.mul(n, f32x4.splat(2.1219444e-4)))
  let p = f32x4.splat(1.987569145e-4)
  p = fma(p, t, 1.3981999507e-3)
  p = fma(p, t, 8.3334519073e-3)
  p = fma(p, t, 4.1665795894e-2)
  p = fma(p, t, 1.6666665459e-1)
  p = fma(p, t, 5.0000001201e-1)
  p = f32x4.add(f32x4.mul(p, f32x4.mul(t, t)), f32x4.add(t, f32x4.splat(1)))
  const y = i32x4.add(p, i32x4.shl(i32x4.trunc_sat_f32x4_s(n), 23))
  return v128.andnot(y, f32x4.lt(x, f32x4.splat(-87)))
}

/** The error function within a few ulp, as a rational function on [−4, 4]. Source: Eigen. */
function erf(x: v128): v128 {
  const z = f32x4.pmax(f32x4.pmin(x, f32x4.splat(4)), f32x4.splat(-4))
  const s = f32x4.mul(z, z)
  let p = fma(s, f32x4.splat(-2.72614225801306e-10), 2.77068142495902e-8)
  p = fma(p, s, -2.10102402082508e-6)
  p = fma(p, s, -5.69250639462346e-5)
  p = fma(p, s, -7.34990630326855e-4)
  p = fma(p, s, -2.95459980854025e-3)
  p = fma(p, s, -1.60960333262415e-2)
  let q = fma(s, f32x4.splat(-1.45660718464996e-5), -2.13374055278905e-4)
  q = fma(q, s, -1.68282697438203e-3)
  q = fma(q, s, -7.37332916720468e-3)
  q = fma(q, s, -1.42647390514189e-2)
  return f32x4.div(f32x4.mul(z, p), q)
}

/** `x · σ(y)`. */
function sigmoidGate(x: v128, y: v128): v128 {
  return f32x4.div(x, f32x4.add(exp(f32x4.neg(y)), f32x4.splat(1)))
}

/** `act(x)`: 0 none, 1 GELU, 2 GELU by tanh, 3 quick GELU, 4 SiLU, 5 ReLU. */
export function activate(kind: i32, x: v128): v128 {
  if (kind === 1) {
    const half = f32x4.mul(x, f32x4.splat(0.5))
    return f32x4.mul(half, f32x4.add(erf(f32x4.mul(x, f32x4.splat(Mathf.SQRT1_2))), f32x4.splat(1)))
  }
  if (kind === 2) {
    const inner = f32x4.mul(x, fma(f32x4.mul(x, x), f32x4.splat(0.044715), 1)) // (1 + tanh t)/2 = σ(2t)
    return sigmoidGate(x, f32x4.mul(inner, f32x4.splat(1.5957691216057308)))
  }
  if (kind === 3) return sigmoidGate(x, f32x4.mul(x, f32x4.splat(1.702)))
  if (kind === 4) return sigmoidGate(x, x)
  if (kind === 5) return f32x4.pmax(x, f32x4.splat(0))
  return x
}
