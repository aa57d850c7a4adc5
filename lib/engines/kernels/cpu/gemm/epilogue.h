// The epilogue of a matrix product: bias, activation, gate and residual.
#pragma once
#include "gemm/linear.h"

/** Applies the epilogue to columns `[from, to)` of row m of y. */
inline void epilogue(const Projection &p, int64_t m, int64_t from, int64_t to) {
  if (!p.bias && p.activation == Activation::none && !p.gate && !p.residual) return;
  float *y = p.y + m * p.N + from;
  const float *bias = p.bias ? p.bias + from : nullptr, *gate = p.gate ? p.gate + m * p.N + from : nullptr;
  const float *residual = p.residual ? p.residual + m * p.N + from : nullptr;
  map(to - from, y, [&](auto at) {
    const Vec activated = activate(p.activation, bias ? at(y) + at(bias) : at(y));
    const Vec gated = gate ? activated * at(gate) : activated;
    return residual ? gated + at(residual) : gated;
  });
}
