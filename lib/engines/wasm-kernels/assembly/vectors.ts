// Four float32 at a time; a row's last one to three entries go through the same code as the others.

/** Up to four entries from `p`; zeros where fewer than four are left. */
export function get(p: usize, left: i32): v128 {
  if (left >= 4) return v128.load(p)
  let x = v128.load32_zero(p)
  if (left > 1) x = v128.load32_lane(p, x, 1, 4)
  if (left > 2) x = v128.load32_lane(p, x, 2, 8)
  return x
}

/** Up to four entries to `p`. */
export function put(p: usize, x: v128, left: i32): void {
  if (left >= 4) {
    v128.store(p, x)
    return
  }
  v128.store32_lane(p, x, 0)
  if (left > 1) v128.store32_lane(p, x, 1, 4)
  if (left > 2) v128.store32_lane(p, x, 2, 8)
}

/** The sum of all four. */
export function sum(x: v128): f32 {
  const pairs = f32x4.add(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1))
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1)
}

/** The greatest of all four, in each. */
export function most(x: v128): v128 {
  const pairs = f32x4.pmax(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1))
  return f32x4.pmax(pairs, v128.shuffle<f32>(pairs, pairs, 1, 0, 3, 2))
}

/** The sums of four vectors, one a lane. */
export function sums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7))
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7))
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7))
}
