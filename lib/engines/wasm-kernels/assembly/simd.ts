// Vectors of four float32. The last one to three entries of a row are loaded and stored as part of a vector.

/** Loads four entries from `p`; where fewer than four remain, the missing entries are 0. */
export function load4(p: usize, remaining: i32): v128 {
  if (remaining >= 4) return v128.load(p)
  let x = v128.load32_zero(p)
  if (remaining > 1) x = v128.load32_lane(p, x, 1, 4)
  if (remaining > 2) x = v128.load32_lane(p, x, 2, 8)
  return x
}

/** Stores four entries to `p`; where fewer than four remain, only the remaining ones. */
export function store4(p: usize, x: v128, remaining: i32): void {
  if (remaining >= 4) {
    v128.store(p, x)
    return
  }
  v128.store32_lane(p, x, 0)
  if (remaining > 1) v128.store32_lane(p, x, 1, 4)
  if (remaining > 2) v128.store32_lane(p, x, 2, 8)
}

/** Sum of the four lanes. */
export function sumLanes(x: v128): f32 {
  const pairs = f32x4.add(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1))
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1)
}

/** Maximum of the four lanes, in every lane. */
export function maxLanes(x: v128): v128 {
  const pairs = f32x4.pmax(x, v128.shuffle<f32>(x, x, 2, 3, 0, 1))
  return f32x4.pmax(pairs, v128.shuffle<f32>(pairs, pairs, 1, 0, 3, 2))
}

/** Lane i is the sum of the lanes of vector i. */
export function sumEach(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7))
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7))
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7))
}
