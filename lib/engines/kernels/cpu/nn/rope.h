// Rotary position embedding: entry i of a head is rotated with entry i + R/2 by the angle of its position.
#pragma once
#include "runtime/simd.h"
#include <algorithm>

/** Rotates the first R of K entries and copies the others; `sign` -1 rotates by the opposite angles. */
inline void rotate(int64_t K, int64_t R, const float *x, const float *cos, const float *sin, float *y, float sign = 1) {
  const int64_t half = R / 2;
  const float *other = x + half;
  map(half, y, [&](auto at) { return at(x) * at(cos) - at(other) * (at(sin) * sign); });
  map(half, y + half, [&](auto at) { return at(other) * at(cos + half) + at(x) * (at(sin + half) * sign); });
  std::copy(x + R, x + K, y + R);
}
