// GEMM: many rows of x times a weight in any quantization format.
#pragma once
#include "gemm/gemv-input.h"
#include "gemm/linear.h"
#include "gemm/matmul.h"

/** Panels of the rows of x, packed by the first projection that needs them; null before. */
struct PackedInput {
  const float *float32 = nullptr, *bfloat16 = nullptr, *amxBfloat16 = nullptr, *int16 = nullptr, *int8 = nullptr;
};

/** `y = epilogue(x Wᵀ)` for many rows, in the arithmetic of `gemmKind` for the format of the weight. */
void gemm(const Projection &, const Rows &x, PackedInput &);

/** `gemm` in float32 of weights that together have at most `maxSmallMatrix` entries. A gate may be the result of an earlier projection. */
void gemmSmall(const std::vector<Projection> &, const Rows &x);
