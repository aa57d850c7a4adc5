// GEMM: many rows of x times a weight in any quantization format.
#pragma once
#include "gemm/gemv.h"
#include "gemm/linear.h"

/** Panels of the rows of x, packed by the first projection that needs them; null before. */
struct PackedInput {
  const float *float32 = nullptr, *bfloat16 = nullptr;
};

/**
 * `y = epilogue(x Wᵀ)` for many rows. Products with large weights in fewer bits than float32 run in bfloat16 with float32 sums if the
 * processor has bfloat16 arithmetic.
 */
void gemm(const Projection &, const Rows &x, PackedInput &);
