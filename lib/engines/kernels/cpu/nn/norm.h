// Reductions along a row, and the RMS norm of a row.
#pragma once
#include "runtime/simd.h"
#include <algorithm>
#include <cmath>

/** The maximum of n > 0 entries. */
inline float maxOf(int64_t n, const float *x) {
  if (n < W) return *std::max_element(x, x + n);
  Vec most = load(x);
  for (int64_t i = W; i + W <= n; i += W) most = max(most, load(x + i));
  most = max(most, load(x + n - W)); // overlaps the vector before
  return maximumOf(most);
}

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
