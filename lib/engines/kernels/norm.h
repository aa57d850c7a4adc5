// Sums along a row, and its norms.
#pragma once
#include "simd.h"
#include <cmath>

template <class F> inline float total(int64_t n, F f) {
  Vec c{};
  int64_t i = 0;
  for (; i + W <= n; i += W) c += f([&](const float *x) { return load(x + i); });
  float rest = 0;
  for (; i < n; i++) rest += f([&](const float *x) { return splat(x[i]); })[0];
  return sum(c) + rest;
}

/** `x / √(E[x²] + eps) · weight` of a row of D numbers. */
inline void rmsRow(int64_t D, const float *x, const float *weight, float eps, float *y) {
  const float scale = 1 / std::sqrt(total(D, [&](auto at) { return at(x) * at(x); }) / D + eps);
  map(D, y, [&](auto at) { return at(x) * scale * at(weight); });
}
