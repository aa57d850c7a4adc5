// GEMM: many rows of x times a weight in any quantization format.
#pragma once
#include "gemm/gemv-input.h"
#include "gemm/linear.h"

/** Panels of the rows of x, packed by the first projection that needs them; null before. */
struct PackedInput {
  const float *float32 = nullptr, *bfloat16 = nullptr, *amxBfloat16 = nullptr, *int16 = nullptr, *int8 = nullptr;
};

/**
 * `y = epilogue(x Wᵀ)` for many rows. Products with large weights in fewer bits than float32 run in the arithmetic of `gemmKind`; the others
 * in float32.
 */
void gemm(const Projection &, const Rows &x, PackedInput &);
